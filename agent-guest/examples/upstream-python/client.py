"""Adds a note in a guest, through the bridge on the host, and prints it as whoever watches sees it, and then all notes.

usage: client.py GUEST TEXT [BRIDGE]
"""

import sys

import grpc

import notes_pb2
import notes_pb2_grpc

# Seconds that a call may take.
LIMIT = 10

if len(sys.argv) not in (3, 4):
    sys.exit("usage: client.py GUEST TEXT [BRIDGE]")
guest, text, bridge = (*sys.argv[1:], "127.0.0.1:7411")[:3]
how = {"metadata": [("x-vbridge-guest", guest)], "timeout": LIMIT}
with grpc.insecure_channel(bridge) as channel:
    notes = notes_pb2_grpc.NotesStub(channel)
    try:
        watch = notes.Watch(notes_pb2.WatchRequest(), **how)
        # With the headers it watches; what is added from here on is seen.
        watch.initial_metadata()
        notes.Add(notes_pb2.AddRequest(text=text), **how)
        print("new:", next(watch).text)
        watch.cancel()
        for note in notes.List(notes_pb2.ListRequest(), **how):
            print(note.id, note.text)
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
