"""A server that answers pings late or never: a process of its own, a blocking thread a connection.

    python -m bench.heartbeat_process

Its port is the first line; a line of JSON follows at the end of every connection: when pings came,
and when it ended, CLOCK_MONOTONIC.
"""

import base64
import contextlib
import hashlib
import json
import resource
import socket
import struct
import threading
import time

from raw_exchange import CLOSE, GUID, PING, PONG, TEXT, frame

telling = threading.Lock()  # a line is written in pieces


def exactly(connection, count):
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def read_frame(connection):
    """Return opcode, payload and when its last byte was here; frames are short."""
    opcode, length = exactly(connection, 2)
    if length & 0x7F == 126:
        (size,) = struct.unpack(">H", exactly(connection, 2))
    else:
        size = length & 0x7F
    mask = exactly(connection, 4) if length & 0x80 else b""
    payload = exactly(connection, size)
    now_ns = time.monotonic_ns()
    if mask:
        payload = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
    return opcode & 0x0F, payload, now_ns


def accept_of(request):
    (key,) = [
        line.split(b":")[1].strip()
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key")
    ]
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def serve_one(connection):
    """``/ms-tag`` answers pings after so long, ``/mute-tag`` never; its end is a line of JSON."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        more = connection.recv(4096)
        if not more:
            return
        request += more
    path = request.split()[1].decode().strip("/")
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_of(request) + b"\r\n\r\n"
    )
    pings_ns = []
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            opcode, payload, now_ns = read_frame(connection)
            if opcode == PING:
                pings_ns.append(now_ns)
            if path.startswith("mute"):
                continue
            if opcode == PING:
                if delay_ms := int(path.partition("-")[0]):
                    time.sleep(delay_ms / 1000)
                connection.sendall(frame(PONG, payload))
            elif opcode == TEXT:
                connection.sendall(frame(TEXT, b"pong"))
            elif opcode == CLOSE:
                connection.sendall(frame(CLOSE, payload))
                break
    ended_ns = time.monotonic_ns()
    connection.close()
    told = json.dumps({"path": path, "pings_ns": pings_ns, "ended_ns": ended_ns})
    with telling:
        print(told, flush=True)


def serve():
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve_one, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    serve()
