"""View: a connection's segment read without numpy, for the supervisor and the command line."""

from dataclasses import dataclass
from pathlib import Path

from shm import segment
from shm.errors import SegmentTruncated, SegmentVersion
from shm.layout import (
    EVENT_BYTES,
    EVENT_HEAD,
    EVENT_SLOTS,
    LAYOUT_HASH,
    SAMPLE_BYTES,
    SAMPLE_SLOTS_MAX,
    SAMPLE_SLOTS_MIN,
    SegmentKind,
    Word,
    stats_bytes,
    stats_layout,
)
from shm.ordering import order_point
from shm.stats import stats_path


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event of the event ring. Times: CLOCK_MONOTONIC and CLOCK_REALTIME nanoseconds."""

    seq: int
    monotonic_ns: int
    wall_ns: int
    kind: int
    body: bytes


class StatsView:
    """
    A read-only mapping of one incarnation's segment; a context manager.

    Attributes:
        words: The hot words, int64, indexed by ``shm.layout.Word``.
        counters: The counters, uint64, indexed by ``shm.layout.Counter``.
        histograms: All histograms' buckets, uint64, one after another.
        epoch: The incarnation that wrote it.
        pid: Its process.

    """

    def __init__(self, mapped: segment.Segment) -> None:
        self.segment = mapped
        self.epoch, self.pid = mapped.header.incarnation, mapped.header.pid
        # Only the sample ring depends on its size, and it stands last.
        self._layout = stats_layout(SAMPLE_SLOTS_MIN)
        whole = memoryview(mapped.memory)
        layout = self._layout
        self.words = whole[layout.hot.offset : layout.hot.end].cast("q")
        self.counters = whole[layout.counters.offset : layout.counters.end].cast("Q")
        self.histograms = whole[layout.histograms.offset : layout.histograms.end].cast("Q")
        whole.release()

    @classmethod
    def open(cls, directory: Path, connection: str) -> "StatsView":
        """
        Map a connection's segment.

        Raises:
            FileNotFoundError: If it has none yet.
            SegmentError: As ``shm.segment.open_readonly``.

        """
        path = stats_path(directory, connection)
        smallest = stats_bytes(SAMPLE_SLOTS_MIN)
        mapped = segment.open_readonly(path, SegmentKind.STATS, LAYOUT_HASH, smallest)
        total = mapped.header.total_bytes
        slots = SAMPLE_SLOTS_MIN + (total - smallest) // SAMPLE_BYTES
        if slots & (slots - 1) or slots > SAMPLE_SLOTS_MAX or stats_bytes(slots) != total:
            mapped.close()
            raise SegmentVersion(path, f"has a size, {total} bytes, that no layout of ours has")
        return cls(mapped)

    def replaced(self) -> bool:
        """Return whether a later incarnation has put its segment in the place of this one."""
        return self.segment.replaced()

    def truncated(self) -> bool:
        """Return whether somebody cut the file, so that reading on would be SIGBUS."""
        return self.segment.truncated()

    def require_whole(self) -> None:
        """
        Raise before memory is touched that somebody may have cut off.

        Raises:
            SegmentTruncated: If it was.

        """
        if self.truncated():
            raise SegmentTruncated(self.segment.path, "was cut while it was read")

    def locked(self) -> bool:
        """Return whether the process that writes it lives."""
        return self.segment.locked()

    def events(self, after: int, limit: int) -> tuple[list[EventRecord], int]:
        """
        Return events with numbers above ``after``, oldest first, and how many were overwritten.

        Args:
            after: The last number already read.
            limit: At most so many; the rest comes with the next call.

        """
        last = self.words[Word.EVENT_PUBLISH]
        first = max(after + 1, last - EVENT_SLOTS + 1)
        wanted = range(first, min(last, first + limit - 1) + 1)
        order_point()
        copies = [self._event_bytes(seq) for seq in wanted]
        order_point()
        oldest = self.words[Word.EVENT_INTENT] - EVENT_SLOTS + 1
        found = [
            (seq, _event(raw)) for seq, raw in zip(wanted, copies, strict=True) if seq >= oldest
        ]
        next_seq = found[0][0] if found else max(first, oldest)
        # A record that carries another number is garbage: nobody must go by its number.
        return [record for seq, record in found if record.seq == seq], next_seq - after - 1

    def _event_bytes(self, seq: int) -> bytes:
        offset = self._layout.events.offset + seq % EVENT_SLOTS * EVENT_BYTES
        return self.segment.memory[offset : offset + EVENT_BYTES]

    def close(self) -> None:
        """Unmap."""
        for view in (self.words, self.counters, self.histograms):
            view.release()
        self.segment.close()

    def __enter__(self) -> "StatsView":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def _event(raw: bytes) -> EventRecord:
    seq, monotonic_ns, wall_ns, kind, length, _zero = EVENT_HEAD.unpack_from(raw)
    start = EVENT_HEAD.size
    return EventRecord(seq, monotonic_ns, wall_ns, kind, raw[start : start + length])
