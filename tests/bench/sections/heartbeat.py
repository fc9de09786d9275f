"""How exactly the heartbeat keeps time: period, death, round trips beside a raw socket's.

The library face, on both loops, against a server in a process of its own
(bench/heartbeat_process.py); CLOCK_MONOTONIC is the same in both.
"""

import asyncio
import base64
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from functools import partial

import uvloop
from raw_exchange import PING, frame

from bench import names
from bench.children import ENVIRONMENT
from bench.figures import percentile
from bench.heartbeat_process import read_frame
from bench.options import Options
from worker import BackoffConfig, HeartbeatConfig, WebSocket

DELAYS_MS = (0, 1, 20, 80)
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Server:
    """The server's process."""

    def __enter__(self):
        command = [sys.executable, "-m", "bench.heartbeat_process"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def url(self, path):
        return f"ws://127.0.0.1:{self.port}/{path}"

    def lives(self, tag, count, since_ns=0):
        """Return what it saw of connections of a tag that pinged since, in order of their ends."""
        found = []
        while len(found) < count:
            life = json.loads(self._process.stdout.readline())
            pinged_ns = life["pings_ns"][-1:] or [0]
            if life["path"].endswith(f"-{tag}") and pinged_ns[0] >= since_ns:
                found.append(life)
        return found


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


def run(options: Options) -> None:
    """Measure; the goals are those of uvloop, which workers run on."""
    quick = options.quick
    with Server() as server:
        for loop in LOOPS:
            who = names.OURS if loop == "uvloop" else f"{names.OURS}, asyncio"
            errors = list(period_errors(server, loop, 20 if quick else 100).values())
            options.figures.add(names.HEARTBEAT, names.PERIOD, who, [max(errors)])
            announced, seen = deaths(server, loop, 10 if quick else 50)
            for label, values in ((who, announced), (f"{who}, FIN at the server", seen)):
                for percent, column in ((50, names.DEATH_P50), (99, names.DEATH_P99)):
                    value = percentile(values, percent)
                    options.figures.add(names.HEARTBEAT, column, label, [value])
        found = round_trips(server, 1 if quick else 5)
    for loop in LOOPS:
        who = names.OURS if loop == "uvloop" else f"{names.OURS}, asyncio"
        over = [medians[loop] - medians["raw"] for medians in found.values()]
        options.figures.add(names.HEARTBEAT, names.RTT_OVER, who, [max(over)])
