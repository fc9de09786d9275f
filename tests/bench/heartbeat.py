"""Measure how exactly the heartbeat keeps time, and print it as a table beside its goals.

    PYTHONPATH=tests/support .venv/bin/python tests/bench/heartbeat.py [--quick] [--json FILE]

The server is a process of its own, with a blocking thread per connection; CLOCK_MONOTONIC is the
same in both. Round trips are compared with a blocking raw socket that pings the same server at the
same pace, in turns.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import os
import platform
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import uvloop
from raw_exchange import CLOSE, GUID, PING, PONG, TEXT, frame

from worker import BackoffConfig, HeartbeatConfig, WebSocket

DELAYS_MS = (0, 1, 20, 80)
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
TRADE = (
    b'{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1672304486868,"data":[{"T":1672304486'
    b'865,"s":"BTCUSDT","S":"Buy","v":"0.001","p":"16578.50","L":"PlusTick","i":"20f43950-d8dd",'
    b'"BT":false}]}'
)

# The server --------------------------------------------------------------------------------------


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
    print(json.dumps({"path": path, "pings_ns": pings_ns, "ended_ns": ended_ns}), flush=True)


def serve():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve_one, args=(connection,), daemon=True).start()


class Server:
    """The server's process."""

    def __enter__(self):
        command = [sys.executable, str(Path(__file__)), "--serve"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def url(self, path):
        return f"ws://127.0.0.1:{self.port}/{path}"

    def lives(self, tag, count):
        """Return what it saw of the connections of a tag, in the order of their ends."""
        found = []
        while len(found) < count:
            life = json.loads(self._process.stdout.readline())
            if life["path"].endswith(f"-{tag}"):
                found.append(life)
        return found


# The measurements --------------------------------------------------------------------------------


def on(loop, coroutine):
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(coroutine)


async def heard(ws, name, count):
    """Return the first ``count`` events of a name."""
    events, done = [], asyncio.Event()

    def take(event):
        events.append(event)
        if len(events) >= count:
            done.set()

    ws.add_handler(name, take)
    await done.wait()
    return events[:count]


def period_errors(server, loop, pings):
    """Return the error of the mean period in percent, by delay; all delays at once."""

    async def ping(delay_ms):
        heartbeat = HeartbeatConfig(interval=0.1, timeout=0.1, first=0.1)
        async with WebSocket(server.url(f"{delay_ms}-{loop}"), heartbeat=heartbeat) as ws:
            await heard(ws, "pong", pings)

    async def act():
        await asyncio.gather(*map(ping, DELAYS_MS))

    on(loop, act())
    errors = {}
    for life in server.lives(loop, len(DELAYS_MS)):
        stamps = life["pings_ns"][:pings]
        mean_s = (stamps[-1] - stamps[0]) / (pings - 1) / 1e9
        errors[int(life["path"].partition("-")[0])] = abs(mean_s - 0.1) / 0.1 * 100
    return dict(sorted(errors.items()))


def deaths(server, loop, count):
    """Return, in ms after ping + timeout: the announcements, and the ends the server saw."""

    async def act():
        heartbeat = HeartbeatConfig(interval=0.2, timeout=0.1, first=0.02)
        backoff = BackoffConfig(initial=0.001, maximum=0.001)
        url = server.url(f"mute-{loop}")
        ws = WebSocket(url, heartbeat=heartbeat, backoff=backoff, close_timeout=0.1)
        pings, timeouts = [], []
        ws.add_handler("ping", pings.append)
        ws.add_handler("timeout", timeouts.append)
        async with ws:
            while len(timeouts) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return pings[:count], timeouts[:count]

    pings, timeouts = on(loop, act())
    ends_ns = [life["ended_ns"] for life in server.lives(loop, count)]
    announced = [(event.waited - 0.1) * 1e3 for event in timeouts]
    seen = [
        (end_ns - ping.monotonic_ns) / 1e6 - 100
        for ping, end_ns in zip(pings, ends_ns, strict=True)
    ]
    return announced, seen


def raw_rtts_us(server, delay_ms, count, pace_s):
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16))
        raw.sendall(
            b"GET /%d-raw HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n" % (delay_ms, key)
        )
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += raw.recv(1)
        found = []
        for number in range(count):
            time.sleep(pace_s)
            masked = bytearray(frame(PING, b"1-%02d" % number))
            masked[1] |= 0x80
            sent_ns = time.monotonic_ns()
            raw.sendall(bytes(masked[:2]) + b"\0\0\0\0" + bytes(masked[2:]))
            _opcode, _payload, now_ns = read_frame(raw)
            found.append((now_ns - sent_ns) / 1e3)
    return found


def our_rtts_us(server, delay_ms, count, pace_s, *, loop):
    async def act():
        interval = pace_s + delay_ms / 1000
        heartbeat = HeartbeatConfig(interval=interval, timeout=5, first=pace_s)
        async with WebSocket(server.url(f"{delay_ms}-rtt"), heartbeat=heartbeat) as ws:
            return [event.latency_ms * 1e3 for event in await heard(ws, "pong", count)]

    return on(loop, act())


def round_trips(server, rounds, each=20, warm=3):
    """Return the medians in µs by delay and client, taken in turns."""
    clients = {"raw": raw_rtts_us} | {loop: partial(our_rtts_us, loop=loop) for loop in LOOPS}
    found = {}
    for delay_ms in DELAYS_MS:
        samples = {name: [] for name in clients}
        for _ in range(rounds):
            for name, rtts_us in clients.items():
                samples[name] += rtts_us(server, delay_ms, each + warm, 0.02)[warm:]
        found[delay_ms] = {name: statistics.median(values) for name, values in samples.items()}
    return found


def matcher_costs(server, batches, batch=20_000):
    """Return ns per message of ``Connection.on_message``: without and with an armed matcher."""

    def heartbeat(matched):
        return HeartbeatConfig(
            interval=120,
            timeout=120,
            first=0.01,
            use_ws_ping=False,
            use_application_ping=True,
            payload=b'{"op": "ping"}',
            pong_matcher=matched,
        )

    async def act():
        spoken = heartbeat(lambda msg: msg == "pong")
        answering, mute = server.url("0-fed"), server.url("mute-fed")
        async with (
            WebSocket(answering, heartbeat=None, buffer=1) as bare,
            WebSocket(answering, heartbeat=spoken, buffer=1) as armed,
            WebSocket(mute, heartbeat=spoken, buffer=1, close_timeout=0.1) as waiting,
        ):
            while armed.latency_ms is None or not waiting.stats().pings:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            clients = {"none": bare, "armed": armed, "outstanding": waiting}
            costs = {name: [] for name in clients}
            for number in range(batches):
                turn = list(clients.items())
                for name, ws in turn[number % 3 :] + turn[: number % 3]:
                    costs[name].append(ns_per_message(ws, batch))
                    await asyncio.sleep(0)
            return costs

    found = on("asyncio", act())
    return {name: statistics.median(values) for name, values in found.items()}


def ns_per_message(ws, count):
    take = ws._connection.on_message
    now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
    begun_ns = time.perf_counter_ns()
    for _ in range(count):
        take(True, TRADE, now_ns, wall_ns)
    return (time.perf_counter_ns() - begun_ns) / count


# The table ---------------------------------------------------------------------------------------


def percentile(values, percent):
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def measure(quick):
    """Return rows of the table: what, measured, goal, unit, whether met."""
    rows = []

    def row(what, value, unit, goal=None):
        met = None if goal is None else value <= goal
        rows.append({"what": what, "value": value, "unit": unit, "goal": goal, "met": met})

    with Server() as server:
        for loop in LOOPS:
            errors = period_errors(server, loop, 20 if quick else 100)
            for delay_ms, error in errors.items():
                what = f"error of the mean period, answers after {delay_ms} ms, {loop}"
                row(what, error, "%", 0.1)
        for loop in LOOPS:
            announced, seen = deaths(server, loop, 10 if quick else 50)
            for what, values in (("announced", announced), ("FIN at the server", seen)):
                what = f"death {what} after ping + timeout"
                row(f"{what}, p50, {loop}", statistics.median(values), "ms", 2)
                row(f"{what}, p99, {loop}", percentile(values, 99), "ms", 20)
        for delay_ms, medians in round_trips(server, 1 if quick else 5).items():
            row(f"RTT p50 by raw socket, answers after {delay_ms} ms", medians["raw"], "µs")
            for loop in LOOPS:
                over_us = medians[loop] - medians["raw"]
                row(f"RTT p50 over that, answers after {delay_ms} ms, {loop}", over_us, "µs", 50)
        costs = matcher_costs(server, 9 if quick else 45)
        row("message without heartbeat", costs["none"], "ns")
        row("message with an armed matcher, no ping outstanding", costs["armed"], "ns")
        row("the same, cost of the matcher", (costs["armed"] / costs["none"] - 1) * 100, "%", 2)
        row("message while a ping is outstanding", costs["outstanding"], "ns")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
    rows = measure(arguments.quick)
    print("| what | measured | goal | |\n|---|---|---|---|")
    for row in rows:
        goal = "" if row["goal"] is None else f"≤ {row['goal']} {row['unit']}"
        met = {None: "", True: "met", False: "**missed**"}[row["met"]]
        print(f"| {row['what']} | {row['value']:.3g} {row['unit']} | {goal} | {met} |")
    if arguments.json:
        machine = {"python": platform.python_version(), "cores": os.cpu_count()}
        document = {"machine": machine, "quick": arguments.quick, "rows": rows}
        arguments.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
