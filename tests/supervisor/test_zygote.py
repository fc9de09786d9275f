"""The fork helper, a real process: what it is asked for and what it reports."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from pathlib import Path

import msgspec
import pytest

from shm.directory import make_private
from shm.errors import SegmentError
from shm.layout import Word
from shm.process import start_ticks
from shm.view import StatsView
from supervisor.errors import ZygoteError
from supervisor.zygote_client import ZygoteClient
from supervisor.zygote_link import SpawnWorker
from worker.spec import Assignment, ConnectionSpec


class Nest:
    """A client of a zygote, and what it was told."""

    def __init__(self, folder):
        self.folder = folder
        self.spawned, self.exited, self.lost = [], [], 0
        self.unheard = []
        self.client = ZygoteClient(
            folder / "zygote.sock",
            self._on_spawned,
            self.exited.append,
            lambda name, error: self.unheard.append((name, error)),
            self._on_lost,
        )

    def _on_spawned(self, report, pidfd):
        self.spawned.append((report, pidfd))

    def _on_lost(self):
        self.lost += 1

    def spawn(self, name, incarnation=1):
        assignment = Assignment(
            fleet="f",
            incarnation=incarnation,
            runtime_dir=str(self.folder),
            shm_dir=str(self.folder / "shm"),
            supervisor_pid=os.getpid(),
            supervisor_start_ticks=start_ticks(os.getpid()),
            spec=ConnectionSpec(name=name, url="ws://127.0.0.1:1/"),
        )
        memory = os.memfd_create("assignment")
        os.write(memory, msgspec.msgpack.encode(assignment))
        self.client.request(SpawnWorker(name, incarnation), memory)
        os.close(memory)

    async def until(self, condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    def close(self):
        for report, pidfd in self.spawned:
            if pidfd != -1:
                os.close(pidfd)
            if report.pid and start_ticks(report.pid):
                os.kill(report.pid, signal.SIGKILL)


def beats(shm_dir, name):
    """Return how often a worker has stamped its segment; 0 if there is none yet."""
    with (
        contextlib.suppress(FileNotFoundError, SegmentError),
        StatsView.open(shm_dir, name) as view,
    ):
        return view.words[Word.LIVENESS_COUNT]
    return 0


def unix_sockets():
    """Yield inode and path of every bound Unix socket (proc_net(5))."""
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if len(fields) == 8:
            yield fields[6], fields[7]


def with_nest(tmp_path, script):
    """Run ``script(nest)`` on a loop; the zygote and its children are gone afterwards."""
    make_private(tmp_path / "shm")
    (tmp_path / "data").mkdir()

    async def main():
        nest = Nest(tmp_path)
        nest.client.start()
        try:
            await script(nest)
        finally:
            nest.close()
            await nest.client.end(10)

    asyncio.run(main())


def test_a_listener_is_bound_kept_and_lent(tmp_path):
    async def script(nest):
        path = tmp_path / "data" / "a.sock"
        lent = await nest.client.listen("a", path, lend=True)
        inode = os.fstat(lent.fileno()).st_ino
        with lent, socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
            lent.accept()[0].close()
        again = await nest.client.listen("a", path, lend=True)
        with again:
            assert os.fstat(again.fileno()).st_ino == inode, "asked twice it is the same one"

    with_nest(tmp_path, script)


def test_a_path_that_cannot_be_bound_is_told(tmp_path):
    async def script(nest):
        (tmp_path / "data" / "a.sock").write_text("mine")
        with pytest.raises(ZygoteError, match=r"a\.sock"):
            await nest.client.listen("a", tmp_path / "data" / "a.sock")
        assert (tmp_path / "data" / "a.sock").read_text() == "mine"

    with_nest(tmp_path, script)


def test_a_worker_is_forked_and_its_end_reported_by_code_or_signal(tmp_path):
    async def script(nest):
        await nest.client.listen("a", tmp_path / "data" / "a.sock")
        nest.spawn("a")
        await nest.until(lambda: nest.spawned)
        report, pidfd = nest.spawned[0]
        assert report.pid != nest.client.pid
        await nest.until(lambda: os.getsid(report.pid) == report.pid)  # a session of its own
        await nest.until(lambda: beats(tmp_path / "shm", "a"))  # it serves, signals too
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        await nest.until(lambda: nest.exited)
        assert (nest.exited[0].pid, nest.exited[0].code, nest.exited[0].signal) == (
            report.pid,
            0,
            "",
        )
        nest.spawn("a", 2)
        await nest.until(lambda: len(nest.spawned) == 2)
        signal.pidfd_send_signal(nest.spawned[1][1], signal.SIGRTMIN + 6)
        await nest.until(lambda: len(nest.exited) == 2)
        assert (nest.exited[1].code, nest.exited[1].signal) == (None, "SIG40")
        assert nest.lost == 0

    with_nest(tmp_path, script)


def test_a_worker_holds_no_listener_but_its_own(tmp_path):
    async def script(nest):
        for name in ("a", "b", "c"):
            await nest.client.listen(name, tmp_path / "data" / f"{name}.sock")
        nest.spawn("b")
        await nest.until(lambda: nest.spawned)
        pid = nest.spawned[0][0].pid
        await nest.until((tmp_path / "shm" / "b.stats").exists)
        held = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        bound = {inode for inode, path in unix_sockets() if path.startswith(f"{tmp_path}/data/")}
        assert len(bound) == 3
        assert len({name for name in held if name.removeprefix("socket:[")[:-1] in bound}) <= 1

    with_nest(tmp_path, script)


def test_a_spawn_without_a_listener_fails_and_says_so(tmp_path):
    async def script(nest):
        nest.spawn("nobody")
        await nest.until(lambda: nest.spawned)
        report, pidfd = nest.spawned[0]
        assert (report.pid, pidfd) == (0, -1)
        assert "no listener" in report.error

    with_nest(tmp_path, script)


def test_its_death_is_told_once_and_a_new_one_can_be_started(tmp_path):
    async def script(nest):
        os.kill(nest.client.pid, signal.SIGKILL)
        await nest.until(lambda: nest.lost)
        with pytest.raises(ZygoteError, match="not running"):
            nest.spawn("a")
        nest.client.start()
        await nest.client.listen("a", tmp_path / "data" / "a.sock")
        assert nest.lost == 1

    with_nest(tmp_path, script)


def test_it_reaps_on_when_its_supervisor_has_gone_and_then_ends(tmp_path):
    async def script(nest):
        await nest.client.listen("a", tmp_path / "data" / "a.sock")
        nest.spawn("a")
        await nest.until(lambda: nest.spawned)
        zygote, worker = nest.client._process, nest.spawned[0][0].pid
        nest.client._process = None  # what a killed supervisor leaves: nobody said End
        nest.client._drop_link()
        await asyncio.sleep(0.3)
        assert zygote.poll() is None, "a child lives"
        os.kill(worker, signal.SIGKILL)
        await asyncio.to_thread(zygote.wait, 10)
        assert zygote.returncode == 0
        assert start_ticks(worker) == 0

    with_nest(tmp_path, script)
