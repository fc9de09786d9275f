"""Measure what docs/performance.md states, on real processes, and print it as a table.

    PYTHONPATH=tests/support .venv/bin/python tests/bench/measure.py [--quick]

Times and CPU vary with the machine and its neighbours; compare ratios of one run. CPU is user and
system time of whole processes, threads included, as the kernel counts it (proc(5)).
"""

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import psutil
from exchange import running_exchange
from fleet import Fleet, binance, running_fleet, wait_for
from listening import listening

from shm.layout import Word
from shm.view import StatsView
from worker.session import State

PEER = """
import asyncio, sys, uvloop, zmq, zmq.asyncio, websockets
async def main():
    publisher = zmq.asyncio.Context().socket(zmq.PUB)
    publisher.bind(sys.argv[2])
    async with websockets.connect(sys.argv[1], compression=None) as socket:
        await socket.send(sys.argv[3])
        async for message in socket:
            await publisher.send_multipart([b"data", message.encode()])
uvloop.run(main())
"""
SUBSCRIBE = '{"op":"subscribe","args":["publicTrade.BTCUSDT"]}'
OWN_CONNECTION = """
[[connection]]
name = "a"
url = "{url}"
subscribe = ['{subscribe}']
heartbeat = 5
"""
QUICK = "restart = { stable_after = 0, crash_loop = false }\n"


def cpu_s(pid):
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def view(fleet, name):
    return StatsView.open(next(fleet.shm_base.glob(f"feedwarden-*/{fleet.name}")), name)


def is_up(fleet, name):
    with contextlib.suppress(FileNotFoundError, StopIteration), view(fleet, name) as seen:
        return seen.words[Word.SESSION_STATE] == State.UP.value
    return False


def per_message(pid, count_of, seconds):
    """Return CPU microseconds a message."""
    time.sleep(1)
    cpu, count = cpu_s(pid), count_of()
    time.sleep(seconds)
    messages = count_of() - count
    return (cpu_s(pid) - cpu) * 1e6 / messages


def cpu_per_message(folder, seconds, rate=5000):
    """Socket to PUB with one subscriber: ours, and what people write by hand, in turns."""
    ours, theirs = [], []
    with running_exchange(rate=rate) as exchange:
        url = exchange.url("/bybit")
        for _ in range(3):
            toml = OWN_CONNECTION.format(url=url, subscribe=SUBSCRIBE)
            with running_fleet(Path(tempfile.mkdtemp(dir=folder)), toml) as fleet:
                row = fleet.wait_up()["a"]
                with listening([row["endpoint"]]) as listener:
                    wait_for(listener.data, "data")
                    ours.append(per_message(row["pid"], lambda: len(listener.frames), seconds))
                fleet.stop()
            endpoint = f"ipc://{folder}/peer.sock"
            command = [sys.executable, "-c", PEER, url, endpoint, SUBSCRIBE]
            with subprocess.Popen(command) as peer, listening([endpoint]) as listener:
                wait_for(lambda: listener.frames, "data")
                two_frames_each = lambda: len(listener.frames) // 2  # noqa: E731
                theirs.append(per_message(peer.pid, two_frames_each, seconds))
                peer.kill()
    return ours, theirs


def kill_to_first_message(folder, times):
    """SIGKILL of a worker to the first message of its successor at a subscriber, milliseconds."""
    found = []
    with (
        running_exchange(rate=1000) as exchange,
        running_fleet(Path(tempfile.mkdtemp(dir=folder)), binance(exchange, "a", extra=QUICK)) as f,
    ):
        row = f.wait_up()["a"]
        with listening([row["endpoint"]], [b"data.a\0"]) as listener:
            for epoch in range(1, times + 1):
                wait_for(partial(first_of_epoch, listener, epoch), "data")
                with view(f, "a") as seen:
                    pid = seen.pid
                time.sleep(0.2)
                killed_ns = time.monotonic_ns()
                os.kill(pid, signal.SIGKILL)
                first = wait_for(partial(first_of_epoch, listener, epoch + 1), "the successor")
                found.append((first - killed_ns) / 1e6)
                listener.frames.clear()
        f.stop()
    return found


def first_of_epoch(listener, epoch):
    for heard_ns, frame in list(listener.frames):
        end = frame.index(b"\0") + 1
        if int.from_bytes(frame[end + 4 : end + 8], "little") == epoch and frame[end + 2] == 1:
            return heard_ns
    return None


def memory_mib(pid):
    """Pss_Anon + Pss_File of smaps_rollup: shared pages divided, shared memory not counted."""
    kib = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Pss_Anon", "Pss_File"):
            kib += int(rest.split()[0])
    return kib / 1024


def fifty(folder, workers, idle_s):
    """Start, memory and idle CPU of a fleet."""
    names = [f"c{number}" for number in range(workers)]
    with running_exchange(rate=20) as exchange:
        fleet = Fleet(Path(tempfile.mkdtemp(dir=folder)), binance(exchange, *names))
        began = time.monotonic()
        try:
            command = [sys.executable, "-P", "-m", "supervisor", "run", str(fleet.file)]
            fleet.process = subprocess.Popen(
                command, env=fleet.environment, stderr=subprocess.DEVNULL, start_new_session=True
            )
            wait_for(lambda: all(is_up(fleet, name) for name in names), "all up", 60)
            up_s = time.monotonic() - began
            time.sleep(5)
            pids = [row["pid"] for row in fleet.rows().values()]
            memory = [memory_mib(pid) for pid in pids]
            before, workers_before = cpu_s(fleet.process.pid), sum(map(cpu_s, pids))
            time.sleep(idle_s)
            idle_ms = (cpu_s(fleet.process.pid) - before) * 1000 * 10 / idle_s
            worker_percent = (sum(map(cpu_s, pids)) - workers_before) / idle_s / workers * 100
            began = time.monotonic()
            fleet.stop(60)
            return up_s, memory, idle_ms, worker_percent, time.monotonic() - began
        finally:
            fleet.kill_everything()


def spread(values, form="{:.1f}"):
    middle = form.format(statistics.median(values))
    return f"{middle} ({form.format(min(values))} to {form.format(max(values))})"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        ours, theirs = cpu_per_message(folder, 2 if quick else 8)
        kills = kill_to_first_message(folder, 5 if quick else 20)
        up_s, memory, idle_ms, worker_percent, stop_s = fifty(folder, 50, 4 if quick else 20)
    ratio = statistics.median(theirs) / statistics.median(ours)
    rows = [
        ("CPU per message, socket to PUB, 5,000/s, one subscriber", spread(ours) + " µs"),
        ("the same by hand: websockets + zmq.asyncio", spread(theirs) + " µs"),
        ("ratio, by hand to ours", f"{ratio:.1f}"),
        ("SIGKILL to the successor's first message", spread(kills) + " ms"),
        ("start of 50 workers, run to all UP", f"{up_s:.2f} s"),
        ("end of 50 workers, Ctrl-C to exit", f"{stop_s:.2f} s"),
        ("memory per worker at 50, Pss_Anon + Pss_File", spread(memory) + " MiB"),
        ("supervisor with 50 workers, CPU per 10 s", f"{idle_ms:.0f} ms"),
        ("worker at 20 messages/s, share of a core", f"{worker_percent:.2f} %"),
    ]
    print("| what | median (range) |\n|---|---|")
    for what, value in rows:
        print(f"| {what} | {value} |")


if __name__ == "__main__":
    main()
