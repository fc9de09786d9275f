"""Keeper: one connection's worker process, seen from the supervisor.

The I/O shell of ``WorkerLife``: it turns pidfds, reaped statuses and the worker's shared memory
into facts, and requests into forks, signals and events. Deadlines of the life are timers here.
"""

import asyncio
import contextlib
import logging
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import msgspec

from shm.errors import SegmentError
from shm.layout import Word
from shm.view import EventRecord, StatsView
from supervisor.liveness import Liveness, Verdict
from supervisor.registry import ExitRecord, Slot
from supervisor.restart import NO_PROCESS, State, WorkerLife
from supervisor.restart_facts import (
    Announce,
    Down,
    Event,
    Exited,
    Ready,
    Signal,
    Spawn,
    Spawned,
    SpawnFailed,
    Tick,
    Up,
)
from worker.announcement import NOT_RELAYED, Announcement, EventKind, Origin
from worker.linux import signal_name
from worker.spec import Assignment, ConnectionSpec

log = logging.getLogger("supervisor.keeper")

STATUS_WAIT_S = 0.05  # how long a seen death waits for the zygote's word on how it came
EVENTS_A_SCAN_MAX = 256


class EventSink(Protocol):
    """Where announcements go; ``supervisor.bus.Bus`` is one."""

    def publish(
        self,
        announcement: Announcement,
        origin: Origin,
        *,
        wall_ns: int | None = None,
        monotonic_ns: int | None = None,
    ) -> None:
        """Publish one event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Household:
    """What every keeper of a fleet shares. ``spawn`` takes name, incarnation and a memfd."""

    fleet: str
    runtime_dir: Path
    shm_dir: Path
    pid: int
    start_ticks: int
    events: EventSink
    spawn: Callable[[str, int, int], None]


class RelayedBody(msgspec.Struct):
    """The JSON that a worker writes into its event ring."""

    cause: str = ""
    detail: dict[str, Any] = {}
    delay_s: float | None = None


_body_decoder = msgspec.json.Decoder(RelayedBody)


class Keeper:
    """
    Keeps one worker.

    Args:
        spec: The connection.
        household: What it shares with the others.
        write_slot: Stores this connection's line of the registry.

    """

    def __init__(
        self,
        spec: ConnectionSpec,
        household: Household,
        write_slot: Callable[[Slot], None],
    ) -> None:
        self.spec = spec
        self.life = WorkerLife(spec)
        self.liveness = Liveness(spec.hang)
        self.incarnation = 0
        self.pid = 0
        self._household = household
        self._write_slot = write_slot
        self._loop = asyncio.get_running_loop()
        self._pidfd = -1
        self._timer: asyncio.TimerHandle | None = None
        self._armed_ns: int | None = None
        self._death_timer: asyncio.TimerHandle | None = None
        self._waiting_signals: list[str] = []
        self._view = self._open_segment()
        self._events_read = 0
        self._slot: Slot | None = None
        self._exit: ExitRecord | None = None
        if self._view is not None:  # of an earlier life: we go on counting, its events are told
            self.incarnation = self._view.epoch
            self._events_read = self._view.words[Word.EVENT_PUBLISH]

    # Facts in, requests out ------------------------------------------------------------------

    def handle(self, event: Event, now_ns: int | None = None) -> None:
        """Feed one fact to the life and perform what it requests, in order."""
        now_ns = time.monotonic_ns() if now_ns is None else now_ns
        for action in self.life.handle(now_ns, event):
            match action:
                case Spawn():
                    self._spawn()
                case Signal(name):
                    self._signal(name)
                case Announce(announcement):
                    self._announce(announcement)
        self._arm()
        self.save()

    def _arm(self) -> None:
        deadline_ns = self.life.deadline_ns
        if deadline_ns == self._armed_ns:
            return
        self._armed_ns = deadline_ns
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline_ns is not None:
            delay_s = max(0, deadline_ns - time.monotonic_ns()) / 1e9
            self._timer = self._loop.call_later(delay_s, self._expire)

    def _expire(self) -> None:
        self._armed_ns = None  # the loop's clock may be early by its resolution: armed again then
        self.handle(Tick())

    def _spawn(self) -> None:
        self.incarnation += 1
        self.liveness = Liveness(self.spec.hang)
        self._waiting_signals.clear()
        assignment = Assignment(
            fleet=self._household.fleet,
            incarnation=self.incarnation,
            runtime_dir=str(self._household.runtime_dir),
            shm_dir=str(self._household.shm_dir),
            supervisor_pid=self._household.pid,
            supervisor_start_ticks=self._household.start_ticks,
            spec=self.spec,
        )
        memory = os.memfd_create(f"assignment-{self.spec.name}", os.MFD_CLOEXEC)
        try:
            os.write(memory, msgspec.msgpack.encode(assignment))
            self._household.spawn(self.spec.name, self.incarnation, memory)
        finally:
            os.close(memory)

    def _signal(self, name: str) -> None:
        if self._pidfd == -1:
            # The fork is on its way: the process gets this as soon as it has a pidfd.
            self._waiting_signals.append(name)
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.Signals[name])

    def _announce(self, announcement: Announcement) -> None:
        log.info("%s", describe(self.spec.name, self.pid, announcement))
        self._household.events.publish(announcement, self._origin())

    def _origin(self) -> Origin:
        return Origin(
            fleet=self._household.fleet,
            connection=self.spec.name,
            incarnation=self.incarnation,
            pid=self.pid,
        )

    # Birth and death -------------------------------------------------------------------------

    def spawned(self, pid: int, pidfd: int) -> None:
        """The zygote forked our process; the keeper owns ``pidfd`` from here."""
        self.pid, self._pidfd = pid, pidfd
        self._loop.add_reader(pidfd, self._dead)
        self.handle(Spawned())
        for name in self._waiting_signals:
            self._signal(name)
        self._waiting_signals.clear()

    def spawn_failed(self, error: str) -> None:
        """The fork was refused, or the zygote ended with the request."""
        self.handle(SpawnFailed(error))

    @property
    def spawning(self) -> bool:
        """Whether a fork has been asked for and not been answered."""
        return self.life.state not in NO_PROCESS and self._pidfd == -1

    def _dead(self) -> None:
        self._loop.remove_reader(self._pidfd)
        # Ours to reap only if the zygote died before it (we are the subreaper).
        with contextlib.suppress(ChildProcessError):
            status = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            if status is not None:
                exited = status.si_code == os.CLD_EXITED
                self.exited(
                    status.si_status if exited else None,
                    None if exited else signal_name(status.si_status),
                )
                return
        self._death_timer = self._loop.call_later(STATUS_WAIT_S, self.exited, None, None)

    def exited(self, code: int | None, signal_name: str | None) -> None:
        """The process is gone; both ``None`` if nobody knows how it ended."""
        if self._pidfd == -1:
            return
        if self._death_timer is not None:
            self._death_timer.cancel()
            self._death_timer = None
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self.relay()  # its last words come before its death
        self.handle(Exited(code, signal_name, random.random()))
        self.pid = 0
        self.save()

    # The worker's shared memory --------------------------------------------------------------

    def relay(self) -> None:
        """Publish what the worker wrote into its event ring since the last time."""
        if self._view is not None:
            self._relay_from(self._view)
        if self._view is None or self._view.replaced():
            former, self._view = self._view, self._open_segment()
            if former is not None:
                former.close()
            if self._view is not None:
                self._relay_from(self._view)

    def _open_segment(self) -> StatsView | None:
        with contextlib.suppress(SegmentError, FileNotFoundError):
            return StatsView.open(self._household.shm_dir, self.spec.name)
        return None

    def _relay_from(self, view: StatsView) -> None:
        published = view.words[Word.EVENT_PUBLISH]
        if published == self._events_read:
            return
        if published < self._events_read:  # a segment that could not go on with its predecessor
            self._events_read = 0
        records, lapped = view.events(self._events_read, EVENTS_A_SCAN_MAX)
        if lapped:
            log.warning("events lost: %d connection=%s", lapped, self.spec.name)
        for record in records:
            self._events_read = record.seq
            self._relay_one(record, view)

    def _relay_one(self, record: EventRecord, view: StatsView) -> None:
        kind = EventKind(record.kind)
        current = view.epoch == self.incarnation
        if current:
            match kind:
                case EventKind.READY:
                    self.handle(Ready())
                case EventKind.UP:
                    self.handle(Up(), record.monotonic_ns)
                case EventKind.DOWN:
                    self.handle(Down(), record.monotonic_ns)
        if kind in NOT_RELAYED:
            return
        body = _body_decoder.decode(record.body)
        announcement = Announcement(
            kind=kind, cause=body.cause, detail=body.detail, delay_s=body.delay_s
        )
        origin = replace(self._origin(), incarnation=view.epoch, pid=view.pid)
        log.info("%s", describe(self.spec.name, view.pid, announcement))
        self._household.events.publish(
            announcement, origin, wall_ns=record.wall_ns, monotonic_ns=record.monotonic_ns
        )

    def judge(self, now_ns: int) -> Verdict | None:
        """Return the verdict on the worker's stamp; ``None`` while it has not stamped."""
        view = self._view
        if self.life.state is not State.RUNNING or view is None or view.epoch != self.incarnation:
            return None
        before = self.liveness.verdict
        verdict = self.liveness.judge(now_ns, view.words[Word.LIVENESS_NS])
        if before is Verdict.FRESH and verdict is not Verdict.FRESH:
            age_s = round(self.liveness.age_ns / 1e9, 3)
            self._announce(Announcement(kind=EventKind.HUNG, detail={"age_s": age_s}))
        if before is not verdict:
            self.save()
        return verdict

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
            incarnation=self.incarnation,
            state=life.state,
            wanted=life.wanted,
            hung=self.liveness.verdict is not Verdict.FRESH,
            crash_loop=life.crash_loop,
            restarts=life.restarts,
            next_attempt_ns=life.deadline_ns or 0 if life.state is State.BACKOFF else 0,
            last_exit=self._exit,
        )
        if slot != self._slot:
            self._slot = slot
            self._write_slot(slot)

    def close(self) -> None:
        """Let go of the worker's segment and descriptors; the worker is left as it is."""
        if self._view is not None:
            self._view.close()
            self._view = None
        for timer in (self._timer, self._death_timer):
            if timer is not None:
                timer.cancel()
        if self._pidfd != -1:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1


def describe(name: str, pid: int, announcement: Announcement) -> str:
    """Return one log line of an event: what, who, and the facts as key=value."""
    facts = [announcement.kind.label, f"connection={name}"]
    if pid:
        facts.append(f"pid={pid}")
    if announcement.cause:
        facts.append(f"cause={announcement.cause}")
    facts += [f"{key}={value}" for key, value in announcement.detail.items()]
    if announcement.delay_s is not None:
        facts.append(f"delay_s={announcement.delay_s:.3f}")
    return " ".join(facts)
