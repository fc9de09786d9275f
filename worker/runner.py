"""Runner: the process of one worker. The I/O shell around session, heartbeat and dialect.

One loop, one thread of ours. It performs what the machines request, tells them what happened, and
counts; whatever it decides beyond that belongs into a machine.
"""

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import random
import resource
import signal
import ssl
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import uvloop

from shm.errors import SegmentError, SegmentLocked, SegmentSpace
from shm.layout import Counter, Word
from shm.stats import StatsWriter
from worker import heartbeat, session
from worker.announcement import Announcement, Cause, EventKind, Origin
from worker.dialect import Dialect, DialectError, Ping, Pong
from worker.exits import Exit
from worker.linux import set_process_name
from worker.matcher import pong_function
from worker.orphan import SupervisorWatch
from worker.publisher import Publisher
from worker.report import Report
from worker.session import Session
from worker.spec import Assignment
from worker.wire import Ending, Wire, tls_context

log = logging.getLogger("worker")

ORPHAN_GRACE_S = 5.0
WARM_UP_S = 2.0
LOOKS_MAX = 64  # loop turns given to what waits in the socket before a death is believed
LAST_FRAME_NS = int(Word.LAST_FRAME_NS)


class Runner:
    """
    One worker on the running loop.

    Args:
        assignment: What to do, and for whom.
        stats: The connection's segment.
        listener: The inherited listening socket's descriptor.

    """

    def __init__(self, assignment: Assignment, stats: StatsWriter, listener: int) -> None:
        spec = assignment.spec
        self._assignment, self._spec = assignment, spec
        self._words, self._counters = stats.words, stats.counters
        self._loop = asyncio.get_running_loop()
        self._dialect = Dialect(spec, pong_function(spec))
        origin = Origin(
            fleet=assignment.fleet,
            connection=spec.name,
            incarnation=assignment.incarnation,
            pid=os.getpid(),
        )
        endpoint = f"ipc://{assignment.runtime_dir}/data/{spec.name}.sock"
        self._publisher = Publisher(spec, stats, listener, endpoint, origin)
        wake_path = f"{assignment.runtime_dir}/wake.sock"
        self._report = Report(spec.name, stats, self._publisher, wake_path)
        self._session = Session(spec)
        self._tls: ssl.SSLContext | None = None
        self._wire: Wire | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed_ns: int | None = None
        self._done: asyncio.Future[Exit] = self._loop.create_future()

    async def run(self) -> Exit:
        """Serve until asked to end; return why it ended."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._publisher.close)
            stack.callback(self._report.close)
            stack.callback(self._cancel_timer)
            self._loop.set_exception_handler(self._fail)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                self._loop.add_signal_handler(number, self._feed, session.StopWanted())
            self._report.start()
            self._report.announce(Announcement(kind=EventKind.READY))
            supervisor = self._assignment.supervisor_pid, self._assignment.supervisor_start_ticks
            stack.callback(SupervisorWatch(*supervisor, self._orphaned).close)
            self._loop.call_later(WARM_UP_S, _freeze)
            self._feed(session.Started())
            return await self._done

    def _fail(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """
        End the worker for an exception that nobody expected.

        asyncio would log it and go on, stamping as ever with a session that lost its timer.
        """
        error = context.get("exception") or RuntimeError(context["message"])
        if not self._done.done():
            self._done.set_exception(error)

    # Machine and shell -----------------------------------------------------------------------

    def _feed(self, event: session.Event, now_ns: int | None = None) -> None:
        """Hand one fact to the session and perform what it requests, in order."""
        now_ns = time.monotonic_ns() if now_ns is None else now_ns
        actions = self._session.handle(now_ns, event)
        # Shown before it is announced: whom an event wakes reads the words at once.
        self._report.state(self._session, now_ns)
        for action in actions:
            self._perform(action, now_ns)
        self._arm()

    def _perform(self, action: session.Action, now_ns: int) -> None:
        match action:
            case session.Dial(number):
                self._dial(number)
            case session.Subscribe():
                self._subscribe()
            case session.CloseWire(code, reason, wait):
                if self._wire is not None:
                    self._wire.close(code, reason, wait=wait)
            case session.AbortWire():
                if self._wire is not None:
                    self._wire.abort()
            case session.Announce(announcement):
                self._report.announce(announcement)
            case session.EndWorker(code):
                if not self._done.done():
                    self._done.set_result(code)
            case _:
                self._perform_heartbeat(action, now_ns)

    def _perform_heartbeat(self, action: heartbeat.Action, now_ns: int) -> None:
        match action:
            case heartbeat.SendPing(seq):
                self._ping(seq)
            case heartbeat.TakePong(_seq, rtt_ns):
                self._report.pong(rtt_ns, now_ns)
            case heartbeat.CountLatePong(rtt_ns):
                detail: dict[str, object] = {"rtt_ns": rtt_ns}
                self._report.announce(Announcement(kind=EventKind.LATE_PONG, detail=detail))
            case heartbeat.CountForeignPong():
                self._counters[Counter.FOREIGN_PONGS] += 1
            case heartbeat.Look():
                self._look(self._wire, LOOKS_MAX)

    def _arm(self) -> None:
        deadline_ns = self._session.deadline_ns
        if deadline_ns == self._armed_ns:
            return
        self._cancel_timer()
        self._armed_ns = deadline_ns
        if deadline_ns is not None:
            delay_s = max(0, deadline_ns - time.monotonic_ns()) / 1e9
            self._timer = self._loop.call_later(delay_s, self._expire)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._armed_ns = None  # uvloop's timers have a grain of 1 ms: an early one is armed again
        self._feed(session.Tick())

    # Actions ---------------------------------------------------------------------------------

    def _dial(self, number: int) -> None:
        if number > 1:
            self._counters[Counter.RECONNECTS] += 1
        self._wire = wire = Wire(self._spec, self)
        try:
            if self._tls is None:
                self._tls = tls_context(self._spec)
        except OSError as error:
            self._loop.call_soon(self.on_closed, Ending(Cause.TLS, error=str(error)))
            return
        wire.open(self._tls)

    def _subscribe(self) -> None:
        assert self._wire is not None
        if all(self._wire.send_text(text.encode()) for text in self._spec.subscribe):
            self._feed(session.Subscribed())

    def _ping(self, seq: int) -> None:
        wire, beat = self._wire, self._spec.heartbeat
        assert wire is not None
        assert beat is not None
        body = self._dialect.ping_body(seq, time.time_ns() // 1_000_000, lambda: str(uuid.uuid4()))
        if not beat.application and not body:
            body = f"{self._session.number}-{seq}".encode()
        now_ns = time.monotonic_ns()
        sent = wire.send_text(body) if beat.application else wire.send_ping(body)
        if not sent:
            self._feed(heartbeat.SendFailed())
            return
        self._counters[Counter.PINGS] += 1
        self._feed(heartbeat.Sent(seq, body), now_ns)
        detail: dict[str, object] = {"payload": body.decode("utf-8", "replace")}
        self._report.announce(Announcement(kind=EventKind.PING, detail=detail))

    def _look(self, wire: Wire | None, looks_left: int) -> None:
        """
        Give the loop turns until what waited in the socket has been read.

        Two hops: a callback of this turn runs before the next poll, its own callback after it.
        """
        if wire is not self._wire or wire is None:
            return
        if looks_left and (looks_left == LOOKS_MAX or wire.pending_bytes()):
            again = lambda: self._loop.call_soon(self._look, wire, looks_left - 1)  # noqa: E731
            self._loop.call_soon(again)
            return
        self._feed(heartbeat.Looked())

    # What the wire tells ---------------------------------------------------------------------

    def on_connected(self, peer: str) -> None:
        """TCP and TLS are done."""
        self._feed(session.Connected(peer))

    def on_opened(self) -> None:
        """The handshake is done."""
        self._feed(session.Opened())

    def on_message(self, is_text: bool, payload: bytes, now_ns: int, wall_ns: int) -> None:
        """A message came: control if the dialect says so, else data. The hot path."""
        self._words[LAST_FRAME_NS] = now_ns
        awaiting = self._session.awaiting_pong
        if (awaiting or self._dialect.always_looks) and self._is_control(payload, awaiting, now_ns):
            if self._spec.publish.control:
                self._publisher.data(payload, is_text, now_ns, wall_ns)
            return
        key = self._key(payload) if self._dialect.has_key else None
        self._publisher.data(payload, is_text, now_ns, wall_ns, key)

    def _is_control(self, payload: bytes, awaiting: bool, now_ns: int) -> bool:
        try:
            control = self._dialect.control(payload, awaiting)
        except DialectError as error:
            self._report.dialect_error(error)
            return False
        match control:
            case Pong(echo):
                self._feed(heartbeat.PongMessage(echo), now_ns)
            case Ping(reply):
                if self._wire is not None and self._wire.send_text(reply.encode()):
                    self._counters[Counter.SERVER_PINGS] += 1
            case None:
                return False
        self._counters[Counter.CONTROL_MESSAGES] += 1
        return True

    def _key(self, payload: bytes) -> str | None:
        try:
            return self._dialect.key(payload)
        except DialectError as error:
            self._report.dialect_error(error)
            return None

    def on_pong(self, body: bytes, now_ns: int) -> None:
        """A PONG frame came."""
        self._words[LAST_FRAME_NS] = now_ns
        self._feed(heartbeat.PongFrame(body), now_ns)

    def on_ping(self, body: bytes, now_ns: int) -> None:
        """A PING frame came and was answered."""
        self._words[LAST_FRAME_NS] = now_ns
        self._counters[Counter.SERVER_PINGS] += 1

    def on_closed(self, ending: Ending) -> None:
        """The socket is gone, or never came to be."""
        self._wire = None
        self._feed(
            session.Lost(
                ending.cause,
                random.random(),
                ending.code,
                ending.reason,
                ending.status,
                ending.error,
            )
        )

    def _orphaned(self) -> None:
        self._report.announce(
            Announcement(
                kind=EventKind.ORPHANED, cause=Cause.SUPERVISOR_DIED, delay_s=ORPHAN_GRACE_S
            )
        )
        self._loop.call_later(ORPHAN_GRACE_S, self._feed, session.StopWanted())


def _freeze() -> None:
    # What a running worker keeps is not walked again: collections stay short.
    gc.collect()
    gc.freeze()


def main(assignment: Assignment, listener: int) -> int:
    """
    Be the worker of ``assignment`` until it ends; return the exit code.

    Called in a fresh fork: single thread, no loop, no ZeroMQ context, signals at their defaults.

    Args:
        assignment: What to do.
        listener: Descriptor of the listening socket of the data endpoint.

    """
    spec = assignment.spec
    set_process_name(f"fw-{spec.name}")
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s %(message)s")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stack_path = Path(assignment.runtime_dir) / f"{spec.name}.stack"
    try:
        stats = StatsWriter.create(
            Path(assignment.shm_dir),
            spec.name,
            incarnation=assignment.incarnation,
            ring_slots=spec.publish.ring,
        )
    except SegmentError as error:
        log.error("connection=%s cannot start: %s", spec.name, error)
        passing = isinstance(error, SegmentLocked | SegmentSpace)
        return Exit.TEMPORARY if passing else Exit.CONFIGURATION
    with stack_path.open("a") as stack_file:
        # The supervisor aborts a hung worker: all stacks go here, then SIGABRT ends it.
        faulthandler.enable(file=stack_file)
        try:
            return uvloop.run(_serve(assignment, stats, listener))
        finally:
            faulthandler.disable()
            stats.close()


async def _serve(assignment: Assignment, stats: StatsWriter, listener: int) -> Exit:
    try:
        runner = Runner(assignment, stats, listener)
    except (ImportError, AttributeError) as error:
        log.error("connection=%s cannot load pong_matcher: %s", assignment.spec.name, error)
        return Exit.CONFIGURATION
    return await runner.run()
