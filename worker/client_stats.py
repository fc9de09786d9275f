"""Stats of the library face: counted as it goes, handed out as a snapshot."""

from collections import deque
from dataclasses import dataclass

from shm.layout import BUCKETS, bucket_edges, bucket_index

AVERAGE_OF = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """
    A moment of a client. Latencies in milliseconds, ``None`` without a sample; times in seconds.

    Attributes:
        state: As ``WebSocket.state``.
        uptime: Of the session that is up, else 0.
        sessions: How many got up.
        reconnects: Dials after the first.
        messages_received: Data messages; ``bytes_received`` their payloads.
        messages_dropped: Messages that a full buffer lost, to ``recv`` or to handlers.
        events_dropped: Other events that were lost to handlers, of which 10,000 may wait.
        latency_ms: Round trip of the last ping of this session.
        latency_avg_ms: Mean of the last ten of this session.
        latency_min_ms: Of all sessions, like the percentiles and the maximum. Percentiles are
            upper edges of buckets at most 1/128 wide.

    """

    state: str
    uptime: float
    sessions: int
    reconnects: int
    connect_failures: int
    messages_received: int
    bytes_received: int
    messages_sent: int
    bytes_sent: int
    messages_dropped: int
    events_dropped: int
    pings: int
    pongs: int
    late_pongs: int
    missed_pongs: int
    foreign_pongs: int
    timeouts: int
    server_pings: int
    matcher_errors: int
    decode_errors: int
    handler_errors: int
    latency_ms: float | None
    latency_avg_ms: float | None
    latency_min_ms: float | None
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    latency_max_ms: float | None


class Latencies:
    """Round trips of a client: the last ones of the session, all of them in a histogram."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=AVERAGE_OF)
        self._buckets = [0] * BUCKETS
        self._count = 0
        self.min_ns = self.max_ns = 0

    def add(self, rtt_ns: int) -> None:
        """Take one sample, nanoseconds."""
        self._recent.append(rtt_ns)
        self._buckets[bucket_index(rtt_ns)] += 1
        self.min_ns = min(self.min_ns, rtt_ns) if self._count else rtt_ns
        self.max_ns = max(self.max_ns, rtt_ns)
        self._count += 1

    def session_ended(self) -> None:
        """Forget what belonged to the session."""
        self._recent.clear()

    @property
    def last_ms(self) -> float | None:
        """Of this session; ``None`` without a sample."""
        return self._recent[-1] / 1e6 if self._recent else None

    @property
    def average_ms(self) -> float | None:
        """Of the last ten of this session; ``None`` without a sample."""
        return sum(self._recent) / len(self._recent) / 1e6 if self._recent else None

    def percentile_ms(self, quantile: float) -> float | None:
        """Return a percentile of all samples, 0 to 100."""
        if not self._count:
            return None
        rank, seen = max(1, -(-self._count * quantile // 100)), 0
        for index, count in enumerate(self._buckets):
            seen += count
            if seen >= rank:
                return min(bucket_edges(index)[1], self.max_ns) / 1e6
        return self.max_ns / 1e6

    def extremes_ms(self) -> tuple[float | None, float | None]:
        """Return the least and the greatest of all samples."""
        if not self._count:
            return None, None
        return self.min_ns / 1e6, self.max_ns / 1e6
