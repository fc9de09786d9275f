"""Report: what a worker lets others know, in shared memory and on its endpoint.

It counts, stamps, announces and wakes the supervisor, which logs what it relays. It decides
nothing: what happened comes from the machines by way of ``worker/runner.py``.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections import deque

import msgspec

from shm.layout import EVENT_BODY_MAX, Counter, SampleKind, Word
from shm.stats import StatsWriter
from worker.announcement import NOT_RELAYED, Announcement, EventKind
from worker.dialect import DecodeError, DialectError
from worker.publisher import Publisher
from worker.session import State
from worker.together import Seen

log = logging.getLogger("worker")

RTT, LOOP_LAG, CONNECT = map(int, (SampleKind.RTT, SampleKind.LOOP_LAG, SampleKind.CONNECT))
STAMP_NS = 100_000_000
DRAIN_S = 0.02
RTT_AVERAGE_OF = 10
TEXT_MAX = 160  # of one text in an event, where the whole would not fit its record


class Report:
    """
    One worker's voice.

    Args:
        connection: Its name.
        stats: Its segment.
        publisher: Its endpoint.
        wake_path: Datagram socket of the supervisor; that nobody reads there is no error.

    """

    def __init__(
        self, connection: str, stats: StatsWriter, publisher: Publisher, wake_path: str
    ) -> None:
        self._connection, self._stats, self._publisher = connection, stats, publisher
        self._words, self._counters = stats.words, stats.counters
        self._loop = asyncio.get_running_loop()
        self._wake = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._wake_path = wake_path
        self._errors_told: set[Counter] = set()
        self._shown = Seen()
        self._rtts: deque[int] = deque(maxlen=RTT_AVERAGE_OF)
        self._stamp_due_ns = time.monotonic_ns()
        self._stamp_timer: asyncio.TimerHandle | None = None
        self._drain_timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to stamp: the endpoint is bound and the loop runs."""
        self._words[Word.SERVING_NS] = time.monotonic_ns()
        self._stamp()

    def close(self) -> None:
        """Cancel the timers: the loop turns a few times more once the endpoint is closed."""
        for timer in (self._stamp_timer, self._drain_timer):
            if timer is not None:
                timer.cancel()
        self._wake.close()

    def state(self, seen: Seen, now_ns: int) -> None:
        """Show the connection's state if it is another than last time."""
        shown = self._shown
        if seen == shown:
            return
        self._shown = seen
        words = self._words
        words[Word.UP_SINCE_NS] = seen.up_ns
        if seen.state is shown.state and seen.number == shown.number:
            return
        words[Word.SESSION] = seen.number
        words[Word.SESSION_STATE] = seen.state.value
        words[Word.SESSION_SINCE_NS] = now_ns
        self._publisher.state(seen.state.name.lower(), seen.number)

    def ping(self, body: bytes, sent_ns: int) -> None:
        """Announce a ping."""
        detail = {"payload": body.decode("utf-8", "replace")}
        ago_ns = time.monotonic_ns() - sent_ns
        self.announce(Announcement(kind=EventKind.PING, detail=detail), ago_ns)

    def pong(self, rtt_ns: int | None, now_ns: int, _payload: bytes) -> None:
        """Count, record, announce a pong in time; ``rtt_ns`` as in ``heartbeat_facts.TakePong``."""
        self._counters[Counter.PONGS] += 1
        self._words[Word.LAST_PONG_NS] = now_ns
        if rtt_ns is not None:
            self._stats.record(RTT, now_ns, rtt_ns)
            self._rtts.append(rtt_ns)
            self._words[Word.RTT_LAST_NS] = rtt_ns
            self._words[Word.RTT_AVG_NS] = sum(self._rtts) // len(self._rtts)
        self.announce(Announcement(kind=EventKind.PONG, detail={"rtt_ns": rtt_ns}))

    def announce(self, announcement: Announcement, ago_ns: int = 0) -> None:
        """Count an event, write it into the event ring, publish it and wake the supervisor."""
        monotonic_ns, wall_ns = time.monotonic_ns() - ago_ns, time.time_ns() - ago_ns
        self._counters[Counter.EVENTS] += 1
        if announcement.kind is EventKind.UP:
            connect_ns = int(announcement.detail["connect_s"] * 1e9)
            self._stats.record(CONNECT, monotonic_ns, connect_ns)
        self._stats.event(announcement.kind, monotonic_ns, wall_ns, event_body(announcement))
        self._publisher.event(announcement, wall_ns, monotonic_ns)
        if announcement.kind in NOT_RELAYED:
            return
        with contextlib.suppress(OSError):  # nobody there, or a full queue: it scans anyway
            self._wake.sendto(self._connection.encode(), self._wake_path)

    def dialect_error(self, error: DialectError) -> None:
        """Count a rule that raised or a payload that did not decode; log the first of a kind."""
        decoding = isinstance(error, DecodeError)
        counter = Counter.DECODE_ERRORS if decoding else Counter.MATCHER_ERRORS
        if counter not in self._errors_told:
            self._errors_told.add(counter)
            log.warning("%s connection=%s error=%s", counter.name.lower(), self._connection, error)
        self._counters[counter] += 1

    def _stamp(self) -> None:
        now_ns = time.monotonic_ns()
        lag_ns = max(0, now_ns - self._stamp_due_ns)
        words = self._words
        words[Word.LIVENESS_NS] = now_ns
        words[Word.LIVENESS_COUNT] += 1
        words[Word.LOOP_LAG_NS] = lag_ns
        self._stats.record(LOOP_LAG, now_ns, lag_ns)
        if self._shown.state is not State.IDLE:
            self._publisher.liveness()
        if self._drain_timer is None:
            self._drain()
        self._stamp_due_ns = max(now_ns, self._stamp_due_ns) + STAMP_NS
        delay_s = (self._stamp_due_ns - time.monotonic_ns()) / 1e9
        self._stamp_timer = self._loop.call_later(max(0.0, delay_s), self._stamp)

    def _drain(self) -> None:
        self._drain_timer = None
        for announcement in self._publisher.look():
            self.announce(announcement)
        # Of fifty wake-ups a second an idle worker needs none: the stamp's ten do.
        if self._publisher.busy:
            self._drain_timer = self._loop.call_later(DRAIN_S, self._drain)


def event_body(announcement: Announcement) -> bytes:
    """Return the JSON that goes into the event ring, texts shortened until it fits a record."""
    detail = announcement.detail
    for text_max in (None, TEXT_MAX, TEXT_MAX // 4):
        if text_max is not None:
            detail = {
                key: value[:text_max] if isinstance(value, str) else value
                for key, value in detail.items()
            }
        body = msgspec.json.encode(
            {"cause": announcement.cause, "detail": detail, "delay_s": announcement.delay_s}
        )
        if len(body) <= EVENT_BODY_MAX:
            return body
    return msgspec.json.encode(
        {"cause": announcement.cause, "detail": {}, "delay_s": announcement.delay_s}
    )
