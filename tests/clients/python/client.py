"""Calls every kind of method with grpcio and prints what came of it as one JSON object.

usage: client.py GENERATED ADDRESS AUTHORITY
GENERATED is the folder with what grpcio-tools made of our .proto files.
"""

import hashlib
import json
import sys
import threading
import time

GENERATED, ADDRESS, AUTHORITY = sys.argv[1:]
sys.path.insert(0, GENERATED)

import grpc
from google.protobuf import duration_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from vbridge.guest.v1 import metrics_pb2, metrics_pb2_grpc, system_pb2, system_pb2_grpc
from vbridge.test.v1 import exercise_pb2 as pb
from vbridge.test.v1 import exercise_pb2_grpc

# A call that hangs is what the tests look for: every call has this deadline unless it says otherwise.
LIMIT = 30
MIB = 1024 * 1024


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def values(metadata):
    """Metadata as lists by name; binary values in hexadecimal digits."""
    found = {}
    for key, value in metadata or ():
        found.setdefault(key, []).append(value.hex() if isinstance(value, bytes) else value)
    return found


def metadata(prefix):
    return [
        pb.Metadata(key=prefix + "-text", value=b"plain"),
        pb.Metadata(key=prefix + "-text", value=b"second"),
        pb.Metadata(key=prefix + "-octets-bin", value=b"\x00\x01\xfe\xff"),
    ]


def failure(error):
    return {
        "code": error.code().value[0],
        "message": error.details(),
        "trailers": values(error.trailing_metadata()),
    }


def unary(stub):
    answer = pb.Answer(headers=metadata("x-head"), trailers=metadata("x-tail"))
    payload = bytes(range(256)) * 40
    response, call = stub.Unary.with_call(
        pb.UnaryRequest(payload=payload, answer=answer), timeout=LIMIT
    )
    return {
        "same": response.payload == payload,
        "headers": values(call.initial_metadata()),
        "trailers": values(call.trailing_metadata()),
    }


def unary_failure(stub):
    answer = pb.Answer(
        code=9, message="no: 100 % “sure”", details=b"\x08\x09", trailers=metadata("x-tail")
    )
    try:
        stub.Unary(pb.UnaryRequest(answer=answer), timeout=LIMIT)
    except grpc.RpcError as error:
        return failure(error)


def client_stream(stub):
    parts = [bytes([index]) * (index * 50) for index in range(100)]
    requests = (pb.ClientStreamRequest(payload=part) for part in parts)
    response = stub.ClientStream(requests, timeout=LIMIT)
    return {
        "count": response.count,
        "bytes": response.bytes,
        "same": response.sha256.hex() == sha256(b"".join(parts)),
    }


def server_stream(stub):
    request = pb.ServerStreamRequest(count=200, size=1000, seed=1)
    messages = list(stub.ServerStream(request, timeout=LIMIT))
    return {
        "indices": [message.index for message in messages] == list(range(200)),
        "sha256": sha256(b"".join(message.payload for message in messages)),
    }


def server_stream_failure(stub):
    answer = pb.Answer(code=10, message="enough", trailers=metadata("x-tail"))
    request = pb.ServerStreamRequest(count=3, size=1, answer=answer)
    count = 0
    try:
        for _ in stub.ServerStream(request, timeout=LIMIT):
            count += 1
    except grpc.RpcError as error:
        return {"count": count, **failure(error)}


def bidi(stub):
    """Sends the next message only when the one before has come back."""
    may_send = threading.Semaphore(0)

    def requests():
        for index in range(50):
            may_send.acquire()
            yield pb.BidiRequest(payload=b"message %d" % index)

    call = stub.Bidi(requests(), timeout=LIMIT)
    # Without a message sent: this would hang if headers came with the first one.
    headers = values(call.initial_metadata())
    echoed = []
    may_send.release()
    for response in call:
        echoed.append(response.payload)
        may_send.release()
    return {
        "headers_first": "x-exercise-begun" in headers,
        "same": echoed == [b"message %d" % index for index in range(50)],
        "code": call.code().value[0],
    }


def echo_metadata(stub):
    sent = [("x-one", "1"), ("x-many", "a"), ("x-many", "b"), ("x-octets-bin", b"\x00\xff")]
    response = stub.EchoMetadata(pb.EchoMetadataRequest(), metadata=sent, timeout=LIMIT)
    seen = {}
    for entry in response.metadata:
        value = entry.value.hex() if entry.key.endswith("-bin") else entry.value.decode()
        seen.setdefault(entry.key, []).append(value)
    return {key: seen.get(key) for key in ("x-one", "x-many", "x-octets-bin")}


def deadline(stub, name):
    seen = stub.Deadline(pb.DeadlineRequest(), timeout=20)
    started = time.monotonic()
    try:
        stub.Hang(pb.HangRequest(id=name), timeout=0.5)
    except grpc.RpcError as error:
        return {
            "seen_ms": seen.milliseconds,
            "code": error.code().value[0],
            "seconds": time.monotonic() - started,
            **ended(stub, name),
        }


def cancel(stub, name):
    call = stub.Hang.future(pb.HangRequest(id=name), timeout=LIMIT)
    counted(stub, name, lambda counters: counters.active == 1)
    call.cancel()
    try:
        call.result()
    except grpc.FutureCancelledError:
        return {"code": call.code().value[0], **ended(stub, name)}


def counted(stub, name, good):
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        counters = stub.Counters(pb.CountersRequest(id=name), timeout=LIMIT)
        if good(counters):
            return counters
        time.sleep(0.02)
    raise TimeoutError(f"{name}: the counters are {counters}")


def ended(stub, name):
    counters = counted(stub, name, lambda counters: counters.active == 0)
    return {"started": counters.started, "cancelled": counters.cancelled}


def compressed(stub):
    payload = b"\x07" * 200_000
    response = stub.Unary(
        pb.UnaryRequest(payload=payload), timeout=LIMIT, compression=grpc.Compression.Gzip
    )
    return {"same": response.payload == payload}


def large(stub):
    payload = b"\x55" * (64 * MIB)
    request = pb.BigMessageRequest(payload=payload, response_size=64 * MIB, seed=2)
    response = stub.BigMessage(request, timeout=120)
    return {
        "received": response.received,
        "same": response.sha256.hex() == sha256(payload),
        "size": len(response.payload),
        "sha256": sha256(response.payload),
    }


def unknown(channel):
    method = channel.unary_unary("/vbridge.test.v1.Exercise/Unknown")
    try:
        method(b"", timeout=LIMIT)
    except grpc.RpcError as error:
        return {"code": error.code().value[0]}


def system(channel):
    stub = system_pb2_grpc.SystemStub(channel)
    info = stub.GetInfo(system_pb2.GetInfoRequest(), timeout=LIMIT)
    ping = stub.Ping(system_pb2.PingRequest(payload=b"ping"), timeout=LIMIT)
    return {"kernel": info.kernel.name, "cpus": info.cpu_count, "ping": ping.payload.decode()}


def metrics(channel):
    stub = metrics_pb2_grpc.MetricsStub(channel)
    request = metrics_pb2.MetricsWatchRequest(interval=duration_pb2.Duration(nanos=200_000_000))
    call = stub.Watch(request, timeout=LIMIT)
    samples = [next(call).sample for _ in range(5)]
    call.cancel()
    uptimes = [sample.uptime.ToNanoseconds() for sample in samples]
    return {
        "sequences": [sample.sequence for sample in samples],
        "uptime_grows": all(a < b for a, b in zip(uptimes, uptimes[1:])),
        "memory": all(sample.memory.total_bytes > 0 for sample in samples),
        "busy": ["busy_percent" in dict((f.name, v) for f, v in s.cpu.ListFields()) for s in samples[1:]],
    }


def reflection(channel):
    # grpcio-reflection speaks v1alpha.
    database = ProtoReflectionDescriptorDatabase(channel)
    file = database.FindFileContainingSymbol("vbridge.test.v1.Exercise")
    return {
        "services": sorted(database.get_services()),
        "methods": [method.name for method in file.service[0].method],
    }


def main():
    options = [
        ("grpc.default_authority", AUTHORITY),
        ("grpc.max_receive_message_length", 70 * MIB),
        ("grpc.max_send_message_length", 70 * MIB),
        ("grpc.enable_http_proxy", 0),
    ]
    name = f"python-{time.time_ns()}"
    with grpc.insecure_channel(ADDRESS, options=options) as channel:
        stub = exercise_pb2_grpc.ExerciseStub(channel)
        result = {
            "unary": unary(stub),
            "unary_failure": unary_failure(stub),
            "client_stream": client_stream(stub),
            "server_stream": server_stream(stub),
            "server_stream_failure": server_stream_failure(stub),
            "bidi": bidi(stub),
            "echo_metadata": echo_metadata(stub),
            "deadline": deadline(stub, name + "-deadline"),
            "cancel": cancel(stub, name + "-cancel"),
            "compressed": compressed(stub),
            "large": large(stub),
            "unknown": unknown(channel),
            "system": system(channel),
            "metrics": metrics(channel),
            "reflection": reflection(channel),
        }
    print(json.dumps(result))


main()
