"""The look at all workers: real keepers, real segments, a child that only waits."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from shm.layout import Word
from shm.stats import StatsWriter, stats_path
from supervisor.calm import CalmWorkers
from supervisor.household import Household
from supervisor.keeper import Keeper
from supervisor.liveness import Verdict
from supervisor.pace import Pace
from supervisor.restart_facts import StartWanted
from supervisor.restart_state import State
from supervisor.scanner import Scanner
from worker.announcement import Announcement, EventKind
from worker.report import event_body
from worker.spec import SECOND_NS, ConnectionSpec, HangSpec


class Heard:
    """An event sink that keeps what it is told."""

    def __init__(self):
        self.kinds = []

    def publish(self, announcement, origin, *, wall_ns=None, monotonic_ns=None):
        self.kinds.append(announcement.kind)


class Line:
    """A line of the table that nobody reads."""

    def __call__(self, slot):
        """Store nothing."""

    def heard(self, seq):
        """Store nothing."""


class Worker:
    """The writer's side of a connection's memory, and a process to go with it."""

    def __init__(self, directory, name, incarnation=1):
        command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE)
        self.stats = StatsWriter.create(
            directory, name, incarnation=incarnation, ring_slots=1024, lock_timeout_ns=0
        )
        self.stamp()
        self.tell(EventKind.READY)

    def stamp(self, age_ns=0):
        self.stats.words[Word.LIVENESS_NS] = time.monotonic_ns() - age_ns

    def tell(self, kind):
        body = event_body(Announcement(kind=kind))
        self.stats.event(kind, time.monotonic_ns(), time.time_ns(), body)

    def end(self):
        self.process.stdin.close()
        self.process.wait()
        self.stats.close()


@dataclass
class Scene:
    """A scanner, and what it looks at: keepers and workers by name, each RUNNING."""

    folder: Path
    heard: Heard = field(default_factory=Heard)
    keepers: dict = field(default_factory=dict)
    workers: dict = field(default_factory=dict)
    calm: CalmWorkers = field(default_factory=CalmWorkers)

    def __post_init__(self):
        self.pace = Pace()
        self.scanner = Scanner(
            self.keepers, self.calm, self.pace, lambda _stall: None, lambda _storm: None
        )


@contextlib.contextmanager
def running(directory, *names):
    scene = Scene(directory)
    keepers, workers = scene.keepers, scene.workers
    household = Household(
        fleet="t",
        runtime_dir=Path(directory),
        shm_dir=Path(directory),
        pid=os.getpid(),
        start_ticks=1,
        events=scene.heard,
        spawn=lambda _name, _incarnation, _assignment: None,
        pace=scene.pace,
        calm=scene.calm,
    )
    try:
        for name in names:
            spec = ConnectionSpec(name=name, url="ws://127.0.0.1:1/")
            keepers[name] = Keeper(spec, household, Line())
            keepers[name].handle(StartWanted())
            workers[name] = worker = Worker(directory, name)
            keepers[name].spawned(worker.process.pid, os.pidfd_open(worker.process.pid))
            keepers[name].relay()
            assert keepers[name].life.state is State.RUNNING
        yield scene
    finally:
        for keeper in keepers.values():
            keeper.close()
        for worker in workers.values():
            worker.end()


def on_loop(test):
    """Run a test on a loop, which keepers stand on."""

    def run(tmp_path):
        async def act():
            with running(tmp_path, "a", "b") as scene:
                test(scene)

        asyncio.run(act())

    run.__name__ = test.__name__
    return run


@on_loop
def test_a_worker_that_stamps_is_left_alone(scene):
    before = list(scene.heard.kinds)
    for _ in range(10):
        scene.workers["a"].stamp()
        scene.scanner.scan(closely=False)
    assert scene.heard.kinds == before
    assert "a" in scene.calm


@on_loop
def test_news_is_relayed_at_the_next_look(scene):
    scene.scanner.scan(closely=False)
    scene.workers["a"].tell(EventKind.UP)
    scene.scanner.scan(closely=False)
    assert scene.heard.kinds[-1] is EventKind.UP
    assert "a" in scene.calm


@on_loop
def test_a_late_stamp_is_told_once_and_a_fresh_one_ends_it(scene):
    scene.workers["a"].stamp(age_ns=2 * SECOND_NS)
    for _ in range(3):
        scene.scanner.scan(closely=False)
    assert scene.heard.kinds.count(EventKind.HUNG) == 1
    assert scene.keepers["a"].liveness.verdict is Verdict.HUNG
    assert "a" not in scene.calm
    scene.workers["a"].stamp()
    scene.scanner.scan(closely=False)
    assert scene.keepers["a"].liveness.verdict is Verdict.FRESH
    assert "a" in scene.calm


@on_loop
def test_a_stamp_beyond_the_timeout_is_death_once_the_first_scan_excuses_no_more(scene):
    for keeper in scene.keepers.values():
        keeper.spec = replace(keeper.spec, hang=HangSpec(timeout_ns=SECOND_NS))
    hung = scene.keepers["a"]
    while hung.life.state is State.RUNNING:
        scene.workers["a"].stamp(age_ns=60 * SECOND_NS)
        scene.workers["b"].stamp()
        scene.scanner.scan(closely=False)
        time.sleep(0.02)
    assert hung.life.state is State.KILLING
    assert EventKind.KILL in scene.heard.kinds
    assert scene.keepers["b"].life.state is State.RUNNING
    scene.workers["a"].process.wait(20)


@on_loop
def test_a_cut_segment_is_not_read(scene):
    os.truncate(stats_path(scene.folder, "a"), 0)
    scene.scanner.scan(closely=True)
    assert "a" not in scene.calm
    assert "b" in scene.calm
    scene.scanner.scan(closely=False)
    assert scene.keepers["a"].life.state is State.RUNNING


@on_loop
def test_what_was_known_of_a_dead_worker_is_not_kept(scene):
    scene.workers["a"].process.kill()
    scene.workers["a"].process.wait()
    scene.keepers["a"].exited(None, "SIGKILL")
    assert "a" not in scene.calm
    scene.scanner.scan(closely=False)
    assert EventKind.EXIT in scene.heard.kinds


@on_loop
def test_a_stamp_that_grows_old_is_seen_after_many_fresh_ones(scene):
    """Stamps are not read at every look: none may be overlooked for that."""
    hang = HangSpec(warn_after_ns=SECOND_NS // 10)
    for name, keeper in scene.keepers.items():
        keeper.respecify(replace(keeper.spec, hang=hang))
        scene.workers[name].stamp()
        scene.scanner.scan(closely=False)
    while scene.keepers["a"].liveness.verdict is Verdict.FRESH:
        scene.workers["b"].stamp()
        scene.scanner.scan(closely=False)
        time.sleep(0.01)
    assert EventKind.HUNG in scene.heard.kinds
    assert "a" not in scene.calm
