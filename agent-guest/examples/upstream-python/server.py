"""A note store: a gRPC server of the guest's own, on a Unix socket that only this machine reaches.

usage: server.py SOCKET
"""

import asyncio
import os
import signal
import sys

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

import notes_pb2
import notes_pb2_grpc

SERVICE = notes_pb2.DESCRIPTOR.services_by_name["Notes"].full_name

# The oldest note makes room for one more.
MAX_NOTES = 1000
MAX_TEXT = 1000
# A watcher that is so far behind is let go.
MAX_WAITING = 100
# How long calls may go on when the server is asked to end.
GRACE = 2


class Notes(notes_pb2_grpc.NotesServicer):
    def __init__(self):
        self.notes = {}
        self.last = 0
        self.watchers = set()

    async def Add(self, request, context):
        if not 1 <= len(request.text) <= MAX_TEXT:
            message = f"a note has 1 to {MAX_TEXT} characters, and this has {len(request.text)}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
        self.last += 1
        note = notes_pb2.Note(id=self.last, text=request.text)
        self.notes[note.id] = note
        self.notes.pop(note.id - MAX_NOTES, None)
        for watcher in list(self.watchers):
            try:
                watcher.put_nowait(note)
            except asyncio.QueueFull:
                self.watchers.discard(watcher)
        return note

    async def Get(self, request, context):
        note = self.notes.get(request.id)
        if note is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no note {request.id}")
        return note

    async def List(self, request, context):
        for note in list(self.notes.values()):
            yield note

    async def Watch(self, request, context):
        watcher = asyncio.Queue(MAX_WAITING)
        self.watchers.add(watcher)
        try:
            await context.send_initial_metadata(())
            while watcher in self.watchers or not watcher.empty():
                yield await watcher.get()
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "notes come faster than they are read")
        finally:
            self.watchers.discard(watcher)


async def serve(path):
    server = grpc.aio.server()
    notes_pb2_grpc.add_NotesServicer_to_server(Notes(), server)
    how = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(how, server)
    reflection.enable_server_reflection([SERVICE, reflection.SERVICE_NAME], server)
    # Only who may open the socket may call: its owner, and thereby the agent.
    os.umask(0o077)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    await how.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    print(f"listening on {path}", flush=True)

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    # Whoever watches is told before the end.
    await how.enter_graceful_shutdown()
    await server.stop(GRACE)


if len(sys.argv) != 2:
    sys.exit("usage: server.py SOCKET")
asyncio.run(serve(sys.argv[1]))
