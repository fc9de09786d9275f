"""CPU of one message from the socket to the owner of a wire, both engines in turns.

    PYTHONPATH=tests/support .venv/bin/python tests/bench/engines.py [--quick]

A server in a process of its own floods the wire, or sends one message every 100 µs; the owner does
nothing with what it is told. ``picows alone`` is picows as its page shows it: a payload is taken
out of each frame, nothing is checked, no clock is read. CPU is the client process's (user and
system), less what it burnt before the first message.
"""

import argparse
import asyncio
import base64
import hashlib
import multiprocessing
import socket
import ssl
import statistics
import time

import picows
import trustme
import uvloop
from raw_exchange import CLOSE, GUID, TEXT, frame

from worker.spec import ConnectionSpec, HeartbeatSpec
from worker.wire import Route, make_wire

PAYLOAD = b'{"topic":"publicTrade.BTCUSDT","type":"snapshot","data":[' + b"x" * 311 + b"]}"
BATCH = 43
PACE_S = 100e-6
AUTHORITY = trustme.CA()


def serve(listener, context, messages, paced):
    """Accept one client, send it so many messages and a close frame."""
    client, _ = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is not None:
        client = context.wrap_socket(client, server_side=True)
    request = b""
    while b"\r\n\r\n" not in request:
        request += client.recv(4096)
    (key,) = [
        line.split(b":")[1].strip()
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key")
    ]
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    client.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    one, due = frame(TEXT, PAYLOAD), time.perf_counter()
    if paced:
        for number in range(messages):
            while time.perf_counter() < due + number * PACE_S:
                pass
            client.sendall(one)
    else:
        for _ in range(messages // BATCH):
            client.sendall(one * BATCH)
    client.sendall(frame(CLOSE, b"\x03\xe8"))
    time.sleep(0.5)


class Owner:
    """Counts; nothing else."""

    def __init__(self):
        self.count, self.began_s, self.closed = 0, 0.0, asyncio.Event()

    def on_socket(self, _connection):
        pass

    def on_connected(self, _peer):
        pass

    def on_opened(self):
        self.began_s = time.process_time()

    def on_message(self, _is_text, _payload, _now_ns, _wall_ns):
        self.count += 1

    def on_read(self):
        pass

    def on_closed(self, _ending):
        self.closed.set()


class Alone(picows.WSListener):
    """What people write by hand."""

    count, began_s = 0, 0.0

    def on_ws_connected(self, _transport):
        self.began_s = time.process_time()

    def on_ws_frame(self, transport, frame):
        if frame.msg_type is picows.WSMsgType.TEXT:
            frame.get_payload_as_bytes()
            self.count += 1
        else:
            transport.disconnect()


async def receive(what, url, context):
    """Return microseconds of CPU a message."""
    if what == "picows alone":
        transport, owner = await picows.ws_connect(Alone, url, ssl_context=context)
        await transport.wait_disconnected()
    else:
        owner = Owner()
        spec = ConnectionSpec(name="x", url=url, heartbeat=HeartbeatSpec(), engine=what)
        make_wire(spec, Route(url=url), owner).open(context)
        await owner.closed.wait()
    return (time.process_time() - owner.began_s) / owner.count * 1e6


def measure(what, messages, *, tls, paced):
    server_side = client_side = None
    if tls:
        server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        AUTHORITY.issue_cert("localhost").configure_cert(server_side)
        client_side = ssl.create_default_context()
        AUTHORITY.configure_trust(client_side)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fork = multiprocessing.get_context("fork")
        server = fork.Process(target=serve, args=(listener, server_side, messages, paced))
        server.start()
        url = f"{'wss' if tls else 'ws'}://localhost:{listener.getsockname()[1]}/"
        try:
            return uvloop.run(receive(what, url, client_side))
        finally:
            server.kill()
            server.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer messages, fewer rounds")
    quick = parser.parse_args().quick
    rounds, flood, paced = (2, 50_000, 5_000) if quick else (5, 300_000, 30_000)
    engines = ("picows alone", "picows", "websockets")
    print("| µs of CPU a message, 370 bytes | " + " | ".join(engines) + " |")
    print("|---" * (len(engines) + 1) + "|")
    for name, keys, messages in (
        ("flood, plain", {"tls": False, "paced": False}, flood),
        ("flood, TLS", {"tls": True, "paced": False}, flood),
        ("10,000 a second, plain", {"tls": False, "paced": True}, paced),
        ("10,000 a second, TLS", {"tls": True, "paced": True}, paced),
    ):
        found = {what: [] for what in engines}
        for _ in range(rounds):
            for what in engines:
                found[what].append(measure(what, messages, **keys))
        cells = [
            f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
            for values in found.values()
        ]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
