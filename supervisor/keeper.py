"""Keeper: one connection's worker process, seen from the supervisor.

The I/O shell of ``WorkerLife``: it turns pidfds, reaped statuses and the worker's shared memory
into facts, and requests into forks, signals and events. Deadlines of the life are timers here.
"""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from shm.layout import Word
from supervisor import stacks
from supervisor.adoption import Living
from supervisor.errors import FleetError
from supervisor.household import Household, describe
from supervisor.liveness import Liveness, Verdict
from supervisor.process_memory import Limit, MemoryWatch, held_by
from supervisor.registry import SlotWriter
from supervisor.restart import WorkerLife
from supervisor.restart_facts import (
    Announce,
    Down,
    Event,
    Exited,
    MemoryHigh,
    Ready,
    RestartWanted,
    Signal,
    Spawn,
    Spawned,
    SpawnFailed,
    Stamped,
    StartWanted,
    Tick,
    Up,
)
from supervisor.restart_state import State
from supervisor.slot import ExitRecord, Former, Slot, restore
from supervisor.spec_handover import SpecHandover
from supervisor.worker_memory import Heard, WorkerMemory, told_by
from supervisor.worker_process import WorkerProcess
from worker.alarm import Alarm
from worker.announcement import NOT_RELAYED, Announcement, Cause, EventKind, Origin
from worker.endpoints import stack_file
from worker.respec import Change
from worker.spec import ConnectionSpec

log = logging.getLogger("supervisor.keeper")

OOM_ENDS = ((None, "SIGKILL"), (None, None))  # how the OOM killer ends a process, or nobody knows


class Keeper:
    """
    Keeps one worker.

    Args:
        spec: The connection.
        household: What it shares with the others.
        table: Stores this connection's line of the registry.

    Attributes:
        spec: Of the next process; what the living one was given is known to ``handover``.
        life: Decides what becomes of the process.
        liveness: Judges its stamps.
        incarnation: The number of the last process, of an earlier supervisor's too.

    """

    def __init__(self, spec: ConnectionSpec, household: Household, table: SlotWriter) -> None:
        self.spec = spec
        self.life = WorkerLife(spec, household.pace)
        self.liveness = Liveness(spec.hang)
        self._household = household
        self._table = table
        self._loop = asyncio.get_running_loop()
        self._process = WorkerProcess(spec.name, self._gone)
        self.exited, self.kill = self._process.ended, self._process.kill
        self._alarm = Alarm(self._expire)
        self._memory = WorkerMemory(household.shm_dir, spec.name)
        self._asked_ns: int | None = None
        self._memory_watch = MemoryWatch()
        self.handover = SpecHandover(household.shm_dir, spec, self._tell_spec)
        self._slot: Slot | None = None
        self._exit: ExitRecord | None = None
        self._adopted_ns = 0  # when this process was taken over
        self._oom_counter: Path | None = None  # of the cgroup that this process began in
        self._heard = -1
        self.incarnation = self._memory.epoch  # of an earlier life: we go on counting

    @property
    def pid(self) -> int:
        """The process, 0 without one."""
        return self._process.pid

    # Facts in, requests out ------------------------------------------------------------------

    def handle(self, event: Event, now_ns: int | None = None) -> None:
        """Feed one fact to the life and perform what it requests, in order; CLOCK_MONOTONIC."""
        now_ns = time.monotonic_ns() if now_ns is None else now_ns
        actions = self.life.handle(now_ns, event)
        for action in actions:
            match action:
                case Spawn():
                    self._spawn()
                case Signal(name):
                    if name == "SIGABRT":
                        path = stack_file(self._household.runtime_dir, self.spec.name)
                        stacks.announce(path, incarnation=self.incarnation, pid=self.pid)
                    self._process.send(name)
                case Announce(announcement):
                    self._announce(announcement)
        self._alarm.set(self.life.deadline_ns)
        # Time passes four times a second, and nearly always nothing comes of it.
        slot = self._slot
        if (
            actions
            or not isinstance(event, Tick)
            or slot is None
            or slot.crash_loop != self.life.crash_loop
        ):
            self.save()
        self._note_calm()

    def _expire(self) -> None:
        self.relay()  # a first stamp in time counts, even if nobody looked yet
        self.handle(Tick())

    def _spawn(self) -> None:
        self.incarnation += 1
        self.liveness = Liveness(self.spec.hang)
        self._memory_watch = MemoryWatch()
        self._process.begin()
        self.handover.begin(self.spec)
        self._adopted_ns, self._asked_ns = 0, time.monotonic_ns()
        try:
            self._household.fork(self.spec, self.incarnation)
        except (OSError, FleetError) as error:
            # Later, for the life is in the middle of a step.
            self._loop.call_soon(self.spawn_failed, str(error))

    def _announce(self, announcement: Announcement) -> None:
        self._publish(announcement, self.incarnation, self.pid)

    def _publish(
        self, announcement: Announcement, incarnation: int, pid: int, **when_ns: int
    ) -> None:
        name = self.spec.name
        log.info("%s", describe(announcement, name, pid))
        origin = Origin(
            fleet=self._household.fleet, connection=name, incarnation=incarnation, pid=pid
        )
        self._household.events.publish(announcement, origin, **when_ns)

    def tell_change(self, doing: str, keys: Sequence[str]) -> None:
        """Announce what becomes of the connection and why."""
        detail = {"action": doing, "keys": list(keys)}
        self._announce(Announcement(kind=EventKind.CONFIG, cause=Cause.CONFIG, detail=detail))

    def respecify(self, spec: ConnectionSpec, *, to_worker: bool = False) -> None:
        """
        Have another specification, which counts from the next process on.

        Args:
            spec: The specification.
            to_worker: Whether the living worker takes it over; ``handover`` has prepared it then.

        """
        if spec.hang != self.spec.hang:
            self.liveness = Liveness(spec.hang)
        self.spec = self.life.spec = spec
        self.handover.commit()
        self.handle(Tick())
        if to_worker:
            self.handover.give(spec, listens=self.life.state is State.RUNNING)

    def _tell_spec(self) -> None:
        self._process.send("SIGUSR1")

    def rotate(self) -> bool:
        """Have the worker replace its session by a fresh one; return whether there is a worker."""
        if self.life.state is not State.RUNNING:  # before ``ready`` the signal would be its death
            return False
        self._process.send("SIGUSR2")
        return True

    # Over the supervisor's death -------------------------------------------------------------

    def recall(self, former: Former) -> None:
        """Go on where an earlier supervisor's keeper stood; to be called before any fact."""
        slot = former.slot
        restore(self.life, slot)
        self._exit, self.handover.given = slot.last_exit, slot.configured
        self.incarnation = max(self.incarnation, slot.incarnation)
        self._memory.resume(former.heard)

    def adopt(self, living: Living) -> None:
        """Keep a worker that outlived its supervisor; its pidfd is ours from here."""
        self._process.hold(living.pid, living.pidfd, living.start_ticks)
        self._oom_counter = self._household.oom_kills.counter_of(living.pid)
        self.incarnation = living.incarnation
        self._adopted_ns = time.monotonic_ns()
        self.life.found(self._adopted_ns)
        self._announce(Announcement(kind=EventKind.ADOPTED))
        self.relay()
        # What it said may be overwritten by now; what it is can be seen.
        if self._memory.word(Word.SERVING_NS, self.incarnation):
            self.handle(Ready())
        up_since_ns = self._memory.word(Word.UP_SINCE_NS, self.incarnation)
        if up_since_ns is not None:
            self.handle(Up() if up_since_ns else Down(), up_since_ns or None)
        self._alarm.set(self.life.deadline_ns)
        self.save()

    def bury(self, pid: int, code: int | None, signal_name: str | None) -> None:
        """Take note of a worker that died while there was no supervisor."""
        self._process.pid = pid
        self._gone(code, signal_name)

    def conform(self, *, moved: bool) -> None:
        """Have a worker do what is configured now, if it was given something else or elsewhere."""
        cost = self.handover.cost(self.spec)
        if self.life.state is State.FAILED and cost is not Change.NONE:
            self.handle(StartWanted())
        if not self.pid or not self.life.wanted:
            return
        if moved or cost is Change.RESTART:
            self.handle(RestartWanted())
        elif cost is not Change.NONE:
            self.handover.prepare(self.spec)
            self.respecify(self.spec, to_worker=True)

    # Birth and death -------------------------------------------------------------------------

    def spawned(self, pid: int, pidfd: int) -> None:
        """The zygote forked our process; the keeper owns ``pidfd`` from here."""
        self._process.hold(pid, pidfd)
        self._oom_counter = self._household.oom_kills.counter_of(pid)
        self._asked_ns = None
        self.handle(Spawned())
        self._process.send_waiting()

    def spawn_failed(self, error: str) -> None:
        """The fork was refused, or the zygote ended with the request."""
        if not self.spawning:  # told twice
            return
        self._asked_ns = None
        self.handle(SpawnFailed(error))

    @property
    def spawning(self) -> bool:
        """Whether a fork has been asked for and not been answered."""
        return self._asked_ns is not None

    @property
    def asked_ns(self) -> int | None:
        """Since when an answer to a fork is awaited, CLOCK_MONOTONIC."""
        return self._asked_ns

    def _gone(self, code: int | None, signal_name: str | None) -> None:
        """The process is gone; both ``None`` if nobody knows how it ended."""
        self.relay()  # its last words come before its death
        oom = (code, signal_name) in OOM_ENDS and self._household.oom_kills.claim(self._oom_counter)
        self.handle(Exited(code, signal_name, random.random(), oom))
        self._process.pid = self._process.start_ticks = 0
        self.save()

    # The worker's shared memory --------------------------------------------------------------

    def relay(self) -> None:
        """Publish what the worker wrote into its event ring since the last time."""
        self._memory.listen(self._hear)
        if self._heard != self._memory.heard:
            self._heard = self._memory.heard
            self._table.heard(self._heard)
        # Of an earlier life, if it could not be opened before: a successor must count on.
        self.incarnation = max(self.incarnation, self._memory.epoch)
        if self.life.state is State.STARTING and self._memory.stamp_ns(self.incarnation):
            self.handle(Stamped())
        self._note_calm()

    def _hear(self, heard: Heard) -> None:
        try:
            self._relay_one(heard)
        except (ValueError, msgspec.MsgspecError) as error:  # of a worker gone mad
            log.warning("event not understood connection=%s error=%s", self.spec.name, error)

    def _relay_one(self, heard: Heard) -> None:
        record = heard.record
        kind = EventKind(record.kind)
        if heard.epoch == self.incarnation:
            match kind:
                case EventKind.READY:
                    self.handle(Ready())
                    self.handover.listens()
                case EventKind.UP:
                    self.handle(Up(), record.monotonic_ns)
                case EventKind.DOWN:
                    self.handle(Down(), record.monotonic_ns)
        if kind in NOT_RELAYED:
            return
        self._publish(
            told_by(record),
            heard.epoch,
            heard.pid,
            wall_ns=record.wall_ns,
            monotonic_ns=record.monotonic_ns,
        )

    def judge(self, now_ns: int) -> Verdict | None:
        """Return the verdict on the worker's stamp; ``None`` while it has not stamped."""
        stamp_ns = self._memory.stamp_ns(self.incarnation)
        if self.life.state is not State.RUNNING or stamp_ns is None:
            self._unsettle()
            return None
        before = self.liveness.verdict
        # One that stood when its supervisor died is given the time that any other would have had.
        verdict = self.liveness.judge(now_ns, max(stamp_ns, self._adopted_ns))
        if before is Verdict.FRESH and verdict is not Verdict.FRESH:
            age_s = round(self.liveness.age_ns / 1e9, 3)
            self._announce(Announcement(kind=EventKind.HUNG, detail={"age_s": age_s}))
        if before is not verdict:
            self.save()
            self._note_calm()
        return verdict

    def weigh(self) -> None:
        """Hold the worker to the limits of its memory, if it has any."""
        limits = self.spec.process
        if not (limits.memory_soft or limits.memory_hard) or self.life.state is not State.RUNNING:
            return
        crossing = self._memory_watch.judge(limits, held_by(self.pid))
        if crossing is None:
            return
        detail = {"limit": crossing.limit, "held": crossing.held, "allowed": crossing.allowed}
        self._announce(Announcement(kind=EventKind.MEMORY, cause=Cause.MEMORY, detail=detail))
        if crossing.limit is Limit.HARD:
            self.handle(MemoryHigh())

    def _note_calm(self) -> None:
        life, is_fresh = self.life, self.liveness.verdict is Verdict.FRESH
        calm = None
        if life.state is State.RUNNING and is_fresh and not life.crash_loop:
            calm = self._memory.calm(self.incarnation, self.spec.hang.warn_after_ns)
        if calm is None:
            self._unsettle()
        else:
            self._household.calm.note(self.spec.name, calm)

    def _unsettle(self) -> None:
        self._household.calm.forget(self.spec.name)

    # The registry ----------------------------------------------------------------------------

    def save(self) -> None:
        """Store this connection's line of the registry if it changed."""
        life = self.life
        if life.last_exit is not None and (
            self._exit is None or self._exit.announcement is not life.last_exit
        ):
            self._exit = ExitRecord(life.last_exit, time.time_ns())
        slot = Slot(
            name=self.spec.name,
            exchange=self.spec.exchange,
            pid=self.pid,
            start_ticks=self._process.start_ticks,
            incarnation=self.incarnation,
            state=life.state,
            wanted=life.wanted,
            hung=self.liveness.verdict is not Verdict.FRESH,
            crash_loop=life.crash_loop,
            restarts=life.restarts,
            next_attempt_ns=life.deadline_ns or 0 if life.state is State.BACKOFF else 0,
            last_exit=self._exit,
            configured=self.handover.given,
            life=life.remembered(),
        )
        if slot != self._slot:
            self._slot = slot
            self._table(slot)

    def close(self) -> None:
        """Let go of the worker's segment and descriptors; the worker is left as it is."""
        self._unsettle()
        self._memory.close()
        self._process.close()
        self._alarm.cancel()
