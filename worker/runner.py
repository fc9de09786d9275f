"""Runner: one worker on its loop, around the sessions of one connection.

Publishes what the connection hears, shows it in shared memory, and lives and ends as the supervisor
wants. Signals: SIGTERM and SIGINT end it, SIGUSR1 has it read its assignment again, SIGUSR2 has it
replace its session by a fresh one.
"""

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import random
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from shm.journal import Journal
from shm.stats import StatsWriter
from worker import endpoints
from worker.announcement import Announcement, Cause, EventKind, Origin
from worker.dialect import Dialect, DialectError, MatchFunction
from worker.exits import Exit
from worker.legs import Legs
from worker.login import LoginFunction
from worker.matcher import load_function, pong_function
from worker.one_leg import OneLeg
from worker.orphan import Guardian
from worker.placement import PENDING, Placement
from worker.publisher import Publisher
from worker.report import Report
from worker.spec import Assignment, ConnectionSpec
from worker.succession import Succession
from worker.topic_watch import TopicWatch
from worker.tuning import Fact, TuningFile
from worker.two_legs import TwoLegs

log = logging.getLogger("worker")

SETTLE_S = 5.0


class Runner:
    """
    One worker on the running loop: the ``Owner`` of its connection (``worker/output.py``).

    Args:
        assignment: What to do, and for whom.
        stats: The connection's segment.
        listener: The inherited listening socket's descriptor.
        placement: Of this process's threads; the loop is pinned already.
        journal: The connection's journal, if it has one.

    Raises:
        FunctionUnusable: If a function that the operator named cannot be loaded.

    """

    def __init__(
        self,
        assignment: Assignment,
        stats: StatsWriter,
        listener: int,
        placement: Placement,
        journal: Journal | None = None,
    ) -> None:
        spec = assignment.spec
        self._assignment, self._spec, self._stats = assignment, spec, stats
        self._loop = asyncio.get_running_loop()
        _functions(spec)  # what cannot be loaded is told before anything is opened
        origin = Origin(
            fleet=assignment.fleet,
            connection=spec.name,
            incarnation=assignment.incarnation,
            pid=os.getpid(),
        )
        runtime_dir = Path(assignment.runtime_dir)
        endpoint = endpoints.data_endpoint(runtime_dir, spec.name)
        placement.prioritise()
        self._publisher = Publisher(spec, stats, listener, endpoint, origin, journal)
        placement.place_endpoint()
        self._placement = placement
        tuning_path = endpoints.tuning_file(Path(assignment.shm_dir), spec.name)
        self._tuning = TuningFile(tuning_path, assignment.incarnation)
        wake_path = str(runtime_dir / endpoints.WAKE)
        self._report = Report(spec.name, stats, self._publisher, wake_path)
        self.state, self.ping, self.pong = self._report.state, self._report.ping, self._report.pong
        self.announce, self.dialect_error = self._report.announce, self._report.dialect_error
        self.message: Callable[[bytes, bool, int, int], None] = self._publisher.data
        self.read = self._publisher.flush
        if spec.publish.key is not None:
            self.message = self._message_of_key
        self._topic_watch = TopicWatch(self._publisher.topics, self.announce)
        self._numbers = itertools.count(1)  # of sessions, over all connections of this process
        self._succession = Succession(spec, self._connection_of, self._end, stats.counters)
        self._settle_timer: asyncio.TimerHandle | None = None
        self._done: asyncio.Future[Exit] = self._loop.create_future()

    def _connection_of(self, spec: ConnectionSpec) -> Legs:
        """Return the sessions of a connection, which tell us everything; be ready for it."""
        pong_matcher, login = _functions(spec)
        self._dialect = Dialect(spec, pong_matcher)
        self._go_by(spec)
        legs: type[Legs] = OneLeg if spec.legs == 1 else TwoLegs
        return legs(
            spec,
            self,
            self._stats.words,
            self._stats.counters,
            pong_matcher=pong_matcher,
            login=login,
            numbers=self._numbers,
        )

    async def run(self) -> Exit:
        """Serve until asked to end; return why it ended."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._publisher.close)
            stack.callback(self._report.close)
            stack.push_async_callback(self._succession.close)
            stack.callback(self._cancel_timers)
            self._loop.set_exception_handler(self._fail)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                self._loop.add_signal_handler(number, self._succession.stop)
            self._loop.add_signal_handler(signal.SIGUSR1, self._read_again)
            self._loop.add_signal_handler(signal.SIGUSR2, self._succession.rotate, Cause.OPERATOR)
            self._report.start()
            self.announce(Announcement(kind=EventKind.READY))
            self.tuned(self._placement.facts)
            self._settle()
            stack.callback(self._guardian().close)
            _freeze()
            self._succession.start()
            return await self._done

    def _fail(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """
        End the worker for an exception that nobody expected.

        asyncio would log it and go on, stamping as ever with a session that lost its timer.
        """
        error = context.get("exception") or RuntimeError(context["message"])
        if not self._done.done():
            self._done.set_exception(error)

    # What the connection tells ---------------------------------------------------------------

    def _message_of_key(self, payload: bytes, is_text: bool, now_ns: int, wall_ns: int) -> None:
        try:
            key = self._dialect.key(payload)
        except DialectError as error:
            self.dialect_error(error)
            key = None
        if key is None:
            self._publisher.data(payload, is_text, now_ns, wall_ns)
        else:
            self._publisher.data_of_key(key, payload, is_text, now_ns, wall_ns)

    def tuned(self, facts: Iterable[Fact]) -> None:
        """Show what the system made of options, and say what it refused."""
        refused = [fact for fact in self._tuning.note(facts) if fact.error != PENDING]
        if refused:
            error = "; ".join(f"{fact.option}: {fact.error}" for fact in refused)
            detail: dict[str, Any] = {"error": error}
            self.announce(Announcement(kind=EventKind.CONFIG, cause=Cause.TUNING, detail=detail))

    def ended(self, code: Exit) -> None:
        """The connection is closed for good, and so are we, unless another one follows."""
        self._succession.ended(code)

    def _end(self, code: Exit) -> None:
        if not self._done.done():
            self._done.set_result(code)

    # Beside it -------------------------------------------------------------------------------

    def _go_by(self, spec: ConnectionSpec) -> None:
        """Go by this specification from now on."""
        self._spec = spec
        has_topics = spec.publish.key is not None
        self._topic_watch.start(spec.liveness.data_silence_ns if has_topics else 0)

    def _cancel_timers(self) -> None:
        self._topic_watch.close()
        if self._settle_timer is not None:
            self._settle_timer.cancel()

    def _settle(self) -> None:
        """Try again what the system allows ten times a second only, for all users together."""
        if self._placement.unfinished:
            delay_s = random.uniform(0.1, SETTLE_S)
            self._settle_timer = self._loop.call_later(delay_s, self._settle_again)

    def _settle_again(self) -> None:
        self.tuned(self._placement.settle())
        self._settle()

    def _read_again(self) -> None:
        """Take over a changed specification as far as that needs no new process."""
        path = endpoints.spec_file(Path(self._assignment.shm_dir), self._spec.name)
        try:
            wanted = msgspec.msgpack.decode(path.read_bytes(), type=ConnectionSpec)
        except (OSError, msgspec.MsgspecError) as error:
            log.error("connection=%s cannot read %s: %s", self._spec.name, path, error)
            return
        self._succession.take(wanted)
        if self._succession.spec.liveness != self._spec.liveness:
            self._go_by(self._succession.spec)

    def _guardian(self) -> Guardian:
        assignment = self._assignment
        return Guardian(
            assignment.supervisor_pid,
            assignment.supervisor_start_ticks,
            endpoints.table_file(Path(assignment.shm_dir)),
            keep=assignment.keep,
            lost=self._orphaned,
            end=self._succession.stop,
        )

    def _orphaned(self, grace_s: float | None) -> None:
        cause = Cause.SUPERVISOR_DIED
        self.announce(Announcement(kind=EventKind.ORPHANED, cause=cause, delay_s=grace_s))


def _functions(spec: ConnectionSpec) -> tuple[MatchFunction | None, LoginFunction | None]:
    return pong_function(spec), load_function(spec.login) if spec.login else None


def _freeze() -> None:
    # What a running worker keeps is not walked again. Before the first dial: later, it would stop
    # the loop for 0.2 ms amid the traffic. From here on a worker makes no garbage that only the
    # collector finds, save when a session ends.
    gc.collect()
    gc.freeze()
