"""Cost of one message behind picows' parser, from its frame to the send of an XPUB, no socket read.

    .venv/bin/python tests/bench/hot_path.py [MESSAGES]

Beside the least that can be written by hand (as tests/bench/peers/floor.py), in turns, in one
thread: what is ours, without the kernel's wake-ups and ZeroMQ's thread (make bench ONLY=hot).
"""

import contextlib
import os
import shutil
import struct
import sys
import tempfile
import time
from pathlib import Path

import uvloop
import zmq
from picows import WSMsgType
from picows.picows import _make_test_ws_frame as frame_of

from shm.journal import Journal
from shm.process import start_ticks
from shm.stats import StatsWriter
from supervisor.listener import listen
from worker.picows_wire import PicowsWire
from worker.placement import Placement
from worker.runner import Runner
from worker.spec import Assignment, ConnectionSpec
from worker.wire import Route

MESSAGES = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000  # a round
READ_MESSAGES, ROUNDS = 20, 9
PAYLOAD = b'{"topic":"publicTrade.BTCUSDT","type":"snapshot","data":[' + b"x" * 311 + b"]}"
HEADER = struct.Struct("<Qq").pack
DONTWAIT = 1


def by_hand(folder):
    """Return the callback of a program by hand: one frame, nothing kept or counted."""
    socket = zmq.Context().socket(zmq.XPUB)
    socket.bind(f"ipc://{folder}/floor.sock")
    send, seq = socket.send, 0

    def on_frame(_ws, frame):
        nonlocal seq
        seq += 1
        header = HEADER(seq, time.monotonic_ns())
        send(b"floor\0" + header + frame.get_payload_as_bytes(), DONTWAIT)

    return on_frame


def runner_in(folder):
    """Return a worker's runner that has not dialled."""
    (folder / "data").mkdir()
    spec = ConnectionSpec(name="a", url="ws://127.0.0.1:1/", heartbeat=None)
    assignment = Assignment(
        fleet="bench",
        incarnation=1,
        runtime_dir=str(folder),
        shm_dir=str(folder),
        supervisor_pid=os.getpid(),
        supervisor_start_ticks=start_ticks(os.getpid()),
        spec=spec,
    )
    stats = StatsWriter.create(folder, "a", incarnation=1, ring_slots=1024)
    listener = listen(folder / "data" / "a.sock").detach()
    journal = Journal.take_over(folder, "a", size=spec.publish.journal, incarnation=1)
    return Runner(assignment, stats, listener, Placement(spec.process), journal)


def nothing():
    """Do what a program by hand does at the end of a read."""


def per_message_ns(call, end_read, frame):
    began = time.thread_time()
    for _ in range(MESSAGES // READ_MESSAGES):
        for _ in range(READ_MESSAGES):
            call(None, frame)
        end_read()
    return (time.thread_time() - began) / MESSAGES * 1e9


async def main():
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        runner = runner_in(folder)
        outlet = runner._publisher._outlet
        route = Route(url="ws://127.0.0.1:1/")
        connection = runner._succession._connection._add(0)
        ours = PicowsWire(runner._spec, route, connection)._listener.on_ws_frame
        frame = frame_of(WSMsgType.TEXT, PAYLOAD, True, False)
        contenders = (
            ("by hand: picows + zmq", by_hand(folder), nothing, None),
            ("feedwarden, nobody subscribed", ours, connection.on_read, None),
            ("feedwarden, sending", ours, connection.on_read, outlet._raw_send),
        )
        found = {name: [] for name, *_ in contenders}
        for _ in range(ROUNDS):
            for name, call, end_read, send in contenders:
                outlet.send_data = send
                found[name].append(per_message_ns(call, end_read, frame))
    floor = min(found[contenders[0][0]])
    print(f"{len(PAYLOAD)} bytes, ns of CPU a message, least of {ROUNDS}:")
    for name, times in found.items():
        print(f"  {name:<30} {min(times):6.0f}  x{min(times) / floor:.2f}", flush=True)
    os._exit(0)


if __name__ == "__main__":
    uvloop.run(main())
