"""Who supervises a worker, one after the other: real processes, real tables, a loop of ours."""

import asyncio
import os
import subprocess
import sys
import time

import pytest

from shm import segment
from shm.layout import FLAG_KEEP, HEADER_BYTES, SegmentKind
from shm.process import start_ticks
from worker import orphan
from worker.orphan import Guardian

SUPERVISOR = """
import sys
from pathlib import Path
from shm import segment
from shm.layout import HEADER_BYTES, SegmentKind
segment.publish(*segment.create(
    Path(sys.argv[1]), SegmentKind.REGISTRY, HEADER_BYTES, 7, name="f", incarnation=1,
    flags=int(sys.argv[2]),
))
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def table(tmp_path):
    return tmp_path / "registry"


@pytest.fixture
def supervisors(table):
    """Return a function that starts a process that writes the table and lives on."""
    started = []

    def start(flags=0):
        process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, str(table), str(flags)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        started.append(process)
        assert process.stdout.readline() == b"up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


class Watched:
    """A guardian and what it said, each with its time."""

    def __init__(self, process, table, *, keep=False):
        self.said, self.ended = [], []
        ticks = start_ticks(process.pid)
        self.guardian = Guardian(
            process.pid,
            ticks,
            table,
            keep=keep,
            lost=self.said.append,
            end=lambda: self.ended.append(time.monotonic()),
        )

    async def until(self, condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


def run(script):
    asyncio.run(script())


def test_who_finds_no_other_ends_after_the_grace(supervisors, table, monkeypatch):
    monkeypatch.setattr(orphan, "GRACE_S", 0.6)

    async def script():
        first = supervisors()
        watched = Watched(first, table)
        await asyncio.sleep(0.3)
        assert watched.said == []
        first.kill()
        first.wait()
        began = time.monotonic()
        await watched.until(lambda: watched.ended)
        assert watched.said == [0.6]
        assert watched.ended[0] - began > 0.4
        watched.guardian.close()

    run(script)


def test_the_next_supervisor_is_watched_like_the_first(supervisors, table, monkeypatch):
    monkeypatch.setattr(orphan, "GRACE_S", 30)

    async def script():
        first = supervisors()
        watched = Watched(first, table)
        first.kill()
        first.wait()
        await watched.until(lambda: watched.said)
        second = supervisors(FLAG_KEEP)
        await asyncio.sleep(2 * orphan.LOOK_S)
        second.kill()
        second.wait()
        await watched.until(lambda: len(watched.said) == 2)
        assert watched.said == [30, None], "and what it wanted counts"
        assert watched.ended == []
        watched.guardian.close()

    run(script)


def test_a_supervisor_that_came_and_died_unseen_is_lost_too(supervisors, table, monkeypatch):
    monkeypatch.setattr(orphan, "GRACE_S", 0.5)

    async def script():
        first = supervisors(FLAG_KEEP)
        watched = Watched(first, table)
        first.kill()
        first.wait()
        await watched.until(lambda: watched.said == [None])
        second = supervisors()
        second.kill()
        second.wait()
        await watched.until(lambda: watched.ended)
        assert watched.said == [None, 0.5]
        watched.guardian.close()

    run(script)


def test_the_last_word_of_a_supervisor_counts_more_than_the_assignment(supervisors, table):
    async def script():
        first = supervisors(FLAG_KEEP)
        watched = Watched(first, table, keep=False)
        first.kill()
        first.wait()
        await watched.until(lambda: watched.said)
        assert watched.said == [None]
        watched.guardian.close()

    run(script)


@pytest.mark.parametrize("spoil", ["missing", "garbage", "another's"])
def test_without_a_table_of_its_supervisor_the_assignment_counts(supervisors, table, spoil):
    async def script():
        first = supervisors(FLAG_KEEP)
        watched = Watched(first, table, keep=True)
        table.unlink()
        if spoil == "garbage":
            table.write_bytes(os.urandom(2 * HEADER_BYTES))
        elif spoil == "another's":
            made = segment.create(
                table, SegmentKind.REGISTRY, HEADER_BYTES, 7, name="f", incarnation=1, flags=0
            )
            segment.publish(*made)
        first.kill()
        first.wait()
        await watched.until(lambda: watched.said)
        assert watched.said == [None]
        watched.guardian.close()

    run(script)
