"""Client output: what a connection tells a user of the library, kept and handed on.

The library's counterpart of ``worker/report.py`` and ``worker/publisher.py``.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from shm.layout import WORDS_IN_PAGE, Counter
from worker import client_events as events
from worker.announcement import Announcement, EventKind
from worker.client_stats import Latencies
from worker.dialect import DecodeError, DialectError
from worker.errors import NotConnected
from worker.exits import Exit
from worker.session import Session, State
from worker.tuning import Fact

ABNORMAL_CLOSURE = 1006  # RFC 6455 section 7.4.1: no close frame came


class ClientOutput:
    """What the connection tells: the ``Output`` of ``worker/connection.py``."""

    def __init__(
        self,
        dispatcher: events.Dispatcher,
        uri: str,
        give: Callable[[bytes, bool], Any],
        buffer_max: int,
    ) -> None:
        self._dispatcher, self._uri, self._give = dispatcher, uri, give
        self._buffer_max = buffer_max
        self._shown = State.IDLE
        self.words = [0] * WORDS_IN_PAGE
        self.counters = [0] * len(Counter)
        self.latencies = Latencies()
        self.buffer: deque[tuple[bytes, bool]] = deque()
        self.arrived, self.up, self.closed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.has_consumer = False
        self.asked: dict[bytes, asyncio.Future[int]] = {}  # by ``WebSocket.ping``
        self.sent = self.sent_bytes = self.dropped = 0
        self.code, self.reason = ABNORMAL_CLOSURE, ""
        self.cause, self.error = "", ""
        self.status: int | None = None

    def message(self, payload: bytes, is_text: bool, now_ns: int, _wall_ns: int) -> None:
        """Keep it for ``recv``, tell it to handlers; with handlers and no ``recv`` only the one."""
        if self._dispatcher.hears("message"):
            data = self._give(payload, is_text)
            self._dispatcher.emit(events.Message(data=data, monotonic_ns=now_ns))
            if not self.has_consumer:
                return
        if len(self.buffer) >= self._buffer_max:
            self.buffer.popleft()
            self.dropped += 1
        self.buffer.append((payload, is_text))
        self.arrived.set()

    def state(self, machine: Session, _now_ns: int) -> None:
        """Tell of a dial that leaves."""
        if machine.state is self._shown:
            return
        self._shown = machine.state
        if machine.state is State.DIALING:
            self._dispatcher.emit(events.Connecting(attempt=machine.attempt))

    def ping(self, body: bytes) -> None:
        """Tell of a ping."""
        self._dispatcher.emit(events.Ping(payload=body))

    def pong(self, rtt_ns: int | None, now_ns: int, payload: bytes) -> None:
        """Count, measure and tell a pong in time."""
        self.counters[Counter.PONGS] += 1
        if rtt_ns is not None:
            self.latencies.add(rtt_ns)
        latency_ms = rtt_ns / 1e6 if rtt_ns is not None else None
        self._dispatcher.emit(
            events.Pong(latency_ms=latency_ms, payload=payload, monotonic_ns=now_ns)
        )

    def announce(self, announcement: Announcement) -> None:
        """Tell a session's event in the library's words."""
        emit, detail = self._dispatcher.emit, announcement.detail
        match announcement.kind:
            case EventKind.UP:
                self.up.set()
                emit(events.Connected(uri=self._uri, session=detail["session"]))
            case EventKind.TIMEOUT:
                emit(events.Timeout(waited=detail["waited_s"], cause=announcement.cause))
            case EventKind.STALE:
                emit(events.Stale(age=detail["age_s"]))
            case EventKind.FRESH:
                emit(events.Fresh())
            case EventKind.LATE_PONG:
                emit(events.LatePong(latency_ms=detail["rtt_ns"] / 1e6))
            case EventKind.DOWN:
                self._down(announcement)

    def _down(self, announcement: Announcement) -> None:
        detail, cause = announcement.detail, announcement.cause
        self.latencies.session_ended()
        self.up.clear()
        self.code, self.reason = detail.get("code", ABNORMAL_CLOSURE), detail.get("reason", "")
        self.cause, self.error = cause, detail.get("error", "")
        self.status = detail.get("status")
        for answered in self.asked.values():
            if not answered.done():
                lost = NotConnected("closed" if announcement.delay_s is None else "reconnecting")
                answered.set_exception(lost)
        if "up_s" in detail:
            self._dispatcher.emit(
                events.Disconnected(code=self.code, reason=self.reason, cause=cause)
            )
        if announcement.delay_s is not None:
            self._dispatcher.emit(
                events.Reconnecting(
                    attempt=detail["attempt"] + 1,
                    delay=announcement.delay_s,
                    error=self.error or cause,
                )
            )

    def dialect_error(self, error: DialectError) -> None:
        """Count and tell a matcher that raised."""
        is_decode = isinstance(error, DecodeError)
        self.counters[Counter.DECODE_ERRORS if is_decode else Counter.MATCHER_ERRORS] += 1
        self._dispatcher.emit(events.Error(error=error, where="pong_matcher"))

    def tuned(self, _facts: tuple[Fact, ...]) -> None:
        """A user of the library has no options to be told of."""

    def ended(self, _code: Exit) -> None:
        """Tell the end, once."""
        if self.closed.is_set():
            return
        self.closed.set()
        self.arrived.set()
        self._dispatcher.emit(events.Closed(code=self.code, reason=self.reason))
