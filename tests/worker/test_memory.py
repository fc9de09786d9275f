"""What a process gives back of its memory, told by the kernel."""

import asyncio
import mmap
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

from worker.memory import PAGE, give_back_zeros


@pytest.fixture
def loop():
    made = uvloop.new_event_loop()
    yield made
    made.close()


def present(owner):
    """Return how many pages of an object's memory there are (proc_pid_pagemap(5))."""
    first, last = id(owner) // PAGE, (id(owner) + type(owner).__basicsize__) // PAGE
    with Path("/proc/self/pagemap").open("rb", buffering=0) as file:
        file.seek(8 * first)
        entries = file.read(8 * (last - first))
    return sum(entry >> 63 for (entry,) in struct.iter_unpack("<Q", entries))


def test_a_loop_gives_its_unused_read_buffer_back(loop):
    before = present(loop)
    given = give_back_zeros(loop)
    assert given >= 50 * PAGE
    assert present(loop) == before - given // PAGE


def test_a_loop_reads_as_before():
    sent = b"x" * 100_000

    async def serve(_reader, writer):
        writer.write(sent)
        await writer.drain()
        writer.close()

    async def receive():
        give_back_zeros(asyncio.get_running_loop())
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            received = await reader.read()
            writer.close()
            await writer.wait_closed()
        return received

    assert uvloop.run(receive()) == sent


def test_small_objects_are_left_alone():
    assert give_back_zeros(object()) == 0
    assert mmap.PAGESIZE == PAGE


FILLED = """
from worker.memory import fill_gaps

blocks = [bytes(2000) for _ in range(1000)]
kept = blocks[::2]
del blocks
again = [bytes(2000) for _ in range(100)]
assert min(map(id, again)) < max(map(id, kept)), "there are gaps"
taken = fill_gaps()
assert taken > 300 * 2000, taken
made = [bytes(2000) for _ in range(100)]
assert min(map(id, made)) > max(map(id, kept)), "and nothing is put into them any more"
"""


def test_what_is_allocated_after_gaps_are_filled_lies_behind_everything_else():
    subprocess.run([sys.executable, "-c", FILLED], check=True)
