"""Client output: what a connection tells a user of the library, kept and handed on.

The library's counterpart of ``worker/report.py`` and ``worker/publisher.py``.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from shm.layout import WORDS_IN_PAGE, Counter
from worker import client_events as events
from worker.announcement import Announcement, EventKind
from worker.client_dispatcher import Dispatcher
from worker.client_inbox import Inbox
from worker.client_stats import Latencies, Stats
from worker.close_codes import ABNORMAL
from worker.dialect import DecodeError, DialectError
from worker.errors import endpoint_of
from worker.exits import Exit
from worker.session import Session, State
from worker.tuning import Fact
from worker.utf8 import printable

log = logging.getLogger("worker.client")

# What a user calls the states of a session.
STATES = {
    State.IDLE: "idle",
    State.DIALING: "connecting",
    State.HANDSHAKING: "connecting",
    State.SUBSCRIBING: "connecting",
    State.UP: "connected",
    State.STALE: "connected",
    State.DRAINING: "closing",
    State.WAITING: "reconnecting",
    State.CLOSED: "closed",
}


class ClientOutput:
    """
    What the connection tells: an ``Output`` (``worker/output.py``).

    Args:
        dispatcher: Runs the user's handlers.
        uri: Told with ``connected``.
        give: Makes of payload and kind what the user gets.
        inbox: Where messages wait for ``recv``.

    Attributes:
        settled: Set while a session is up, and for good once the connection has ended.
        closed: Set once it has ended for good.
        code: Of the last close frame, or 1006; ``reason`` likewise.
        cause: Why the last session ended; ``error`` and ``status`` likewise.

    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        uri: str,
        give: Callable[[bytes, bool], Any],
        inbox: Inbox,
    ) -> None:
        self._dispatcher, self._uri, self._give, self._inbox = dispatcher, uri, give, inbox
        self.host = endpoint_of(uri)
        self._shown = State.IDLE
        self.words = [0] * WORDS_IN_PAGE
        self.counters = [0] * len(Counter)
        self.latencies = Latencies()
        self.settled, self.closed = asyncio.Event(), asyncio.Event()
        self.sent = self.sent_bytes = 0
        self.code, self.reason = ABNORMAL, ""
        self.cause, self.error = "", ""
        self.status: int | None = None

    def read(self) -> None:
        """All messages of one read were told (Output)."""

    def message(self, payload: bytes, is_text: bool, now_ns: int, _wall_ns: int) -> None:
        """Keep it for ``recv``, tell it to handlers; with handlers and no ``recv`` only the one."""
        if self._dispatcher.hears("message"):
            data = self._give(payload, is_text)
            self._dispatcher.emit(events.Message(data=data, monotonic_ns=now_ns), len(payload))
            if not self._inbox.has_consumer:
                return
        self._inbox.put(payload, is_text)

    def state(self, machine: Session, _now_ns: int) -> None:
        """Tell of a dial that leaves."""
        if machine.state is self._shown:
            return
        self._shown = machine.state
        if machine.state is State.DIALING:
            self._dispatcher.emit(events.Connecting(attempt=machine.attempt))

    @property
    def state_word(self) -> str:
        """The state as a user calls it."""
        return STATES[State.CLOSED if self.closed.is_set() else self._shown]

    def ping(self, body: bytes, sent_ns: int) -> None:
        """Tell of a ping."""
        self._dispatcher.emit(
            events.Ping(payload=body, monotonic_ns=sent_ns, time=events.wall_time(sent_ns))
        )

    def pong(self, rtt_ns: int | None, now_ns: int, payload: bytes) -> None:
        """Count, measure and tell a pong in time."""
        self.counters[Counter.PONGS] += 1
        if rtt_ns is not None:
            self.latencies.add(rtt_ns)
        latency_ms = rtt_ns / 1e6 if rtt_ns is not None else None
        self._dispatcher.emit(
            events.Pong(
                latency_ms=latency_ms,
                payload=payload,
                monotonic_ns=now_ns,
                time=events.wall_time(now_ns),
            )
        )

    def announce(self, announcement: Announcement) -> None:
        """Tell a session's event in the library's words."""
        emit, detail = self._dispatcher.emit, announcement.detail
        match announcement.kind:
            case EventKind.UP:
                self.settled.set()
                emit(events.Connected(uri=self._uri, session=detail["session"]))
            case EventKind.TIMEOUT:
                emit(
                    events.Timeout(
                        waited=detail["waited_s"],
                        cause=announcement.cause,
                        loop_lag=detail.get("loop_lag_s", 0.0),
                        unread_bytes=detail.get("unread_bytes", 0),
                    )
                )
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
        self.settled.clear()
        self.code, self.reason = detail.get("code", ABNORMAL), detail.get("reason", "")
        self.cause, self.error = cause, detail.get("error", "")
        self.status = detail.get("status")
        if "up_s" in detail:
            self._dispatcher.emit(
                events.Disconnected(code=self.code, reason=self.reason, cause=cause)
            )
        if announcement.delay_s is not None:
            self._reconnecting(detail["attempt"] + 1, announcement.delay_s, "up_s" in detail)

    def _reconnecting(self, attempt: int, delay_s: float, was_up: bool) -> None:
        """Tell what a user who listens to no event would otherwise wait for in silence."""
        error = self.error or self.cause
        self._dispatcher.emit(events.Reconnecting(attempt=attempt, delay=delay_s, error=error))
        log.warning(
            "%s: %s (%s%s); dial %d in %.3f s",
            self.host,
            "lost" if was_up else "cannot connect",
            self.cause,
            f": {printable(self.error or self.reason)}" if self.error or self.reason else "",
            attempt,
            delay_s,
        )

    def dialect_error(self, error: DialectError) -> None:
        """Count and tell a matcher that raised, or a payload that did not decode; log the first."""
        is_decode = isinstance(error, DecodeError)
        counter = Counter.DECODE_ERRORS if is_decode else Counter.MATCHER_ERRORS
        where = "decode" if is_decode else "pong_matcher"
        self.counters[counter] += 1
        if self.counters[counter] == 1:
            why = printable(str(error))
            log.warning("%s: %s: %s; more are only counted", self.host, where, why)
        self._dispatcher.emit(events.Error(error=error, where=where))

    def notice(self) -> None:
        """A user of the library configures no notices."""

    def crowded(self) -> None:
        """Nor a budget."""

    def tuned(self, _facts: tuple[Fact, ...]) -> None:
        """A user of the library has no options to be told of."""

    def ended(self, _code: Exit) -> None:
        """Tell the end, once."""
        if self.closed.is_set():
            return
        self.closed.set()
        self.settled.set()
        self._inbox.close()
        self._dispatcher.emit(events.Closed(code=self.code, reason=self.reason))

    def stats(self, state: str, up_ns: int) -> Stats:
        """Return a snapshot; ``up_ns``, CLOCK_MONOTONIC: since when a session is up, 0 if none."""
        counters, latencies = self.counters, self.latencies
        least, greatest = latencies.extremes_ms()
        return Stats(
            state=state,
            uptime=(time.monotonic_ns() - up_ns) / 1e9 if up_ns else 0.0,
            sessions=counters[Counter.SESSIONS],
            reconnects=counters[Counter.RECONNECTS],
            connect_failures=counters[Counter.CONNECT_FAILURES],
            messages_received=counters[Counter.MESSAGES],
            bytes_received=counters[Counter.BYTES],
            messages_sent=self.sent,
            bytes_sent=self.sent_bytes,
            messages_dropped=self._inbox.dropped + self._dispatcher.dropped,
            events_dropped=self._dispatcher.others_dropped,
            pings=counters[Counter.PINGS],
            pongs=counters[Counter.PONGS],
            late_pongs=counters[Counter.LATE_PONGS],
            missed_pongs=counters[Counter.MISSED_PONGS],
            foreign_pongs=counters[Counter.FOREIGN_PONGS],
            timeouts=counters[Counter.TIMEOUTS],
            server_pings=counters[Counter.SERVER_PINGS],
            matcher_errors=counters[Counter.MATCHER_ERRORS],
            decode_errors=counters[Counter.DECODE_ERRORS],
            handler_errors=self._dispatcher.errors,
            latency_ms=latencies.last_ms,
            latency_avg_ms=latencies.average_ms,
            latency_min_ms=least,
            latency_p50_ms=latencies.percentile_ms(50),
            latency_p99_ms=latencies.percentile_ms(99),
            latency_max_ms=greatest,
        )
