"""Stats: the writer's side of a connection's segment. One process, one thread writes.

Words are single aligned 8-byte stores. A record is announced by an intent word, stored in one
slice and published by a second word, so that a reader can tell what it must not believe
(docs/shm-layout.md). ``struct.pack_into`` is never used on live memory: it zero-fills first, and a
reader sees the zeros.
"""

import os
from pathlib import Path

from shm import segment
from shm.errors import SegmentForeign, SegmentTruncated, SegmentVersion
from shm.layout import (
    COUNTER_HELP,
    COUNTER_META,
    EVENT_BODY_MAX,
    EVENT_BYTES,
    EVENT_HEAD,
    EVENT_SLOTS,
    EVENT_TAIL,
    LAYOUT_HASH,
    LOW_HALF,
    SAMPLE_SLOTS_MIN,
    WORD_MAX,
    SegmentKind,
    StatsLayout,
    Word,
    stats_bytes,
    stats_layout,
)
from shm.ordering import register_writer
from shm.samples import make_recorder
from shm.segment_lock import lock_predecessor

SUFFIX = ".stats"
LOCK_TIMEOUT_NS = 10_000_000_000
# The descriptions of all counters, in their order: the same in every segment.
assert list(COUNTER_HELP) == list(range(len(COUNTER_HELP)))
COUNTERS_TOLD = b"".join(
    COUNTER_META.pack(unit.encode(), counter.name.lower().encode(), text.encode())
    for counter, (unit, text) in COUNTER_HELP.items()
)
CARRIED_WORDS = (
    Word.SEQ,
    Word.SAMPLE_INTENT,
    Word.SAMPLE_PUBLISH,
    Word.SAMPLE_FIRST,
    Word.EVENT_INTENT,
    Word.EVENT_PUBLISH,
)


def stats_path(directory: Path, connection: str) -> Path:
    """Return where a connection's segment is."""
    return directory / f"{connection}{SUFFIX}"


def _plausible(words: memoryview) -> bool:
    """Return whether these hot words are what a writer leaves that was ended at any instruction."""
    if not all(0 <= words[word] <= WORD_MAX for word in CARRIED_WORDS):
        return False
    samples, events = words[Word.SAMPLE_PUBLISH], words[Word.EVENT_PUBLISH]
    return (
        samples <= words[Word.SAMPLE_INTENT] <= samples + 1
        and events <= words[Word.EVENT_INTENT] <= events + 1
        and words[Word.SAMPLE_FIRST] <= samples + 1
    )


class StatsWriter:
    """
    The segment of one incarnation, locked for life.

    Attributes:
        words: The hot words, int64, indexed by ``shm.layout.Word``.
        counters: The counters, uint64, indexed by ``shm.layout.Counter``.
        epoch: The incarnation.
        record: Adds a sample (``shm.samples.Record``).
        former_subscriptions: How many prefixes were subscribed at the predecessor's endpoint.

    """

    def __init__(self, owned: segment.Segment, layout: StatsLayout) -> None:
        self._segment, self._layout = owned, layout
        self._memory = owned.memory
        self.epoch = owned.header.incarnation
        whole = memoryview(owned.memory)
        self.words = whole[layout.hot.offset : layout.hot.end].cast("q")
        self.counters = whole[layout.counters.offset : layout.counters.end].cast("Q")
        self._buckets = whole[layout.histograms.offset : layout.histograms.end].cast("Q")
        whole.release()
        self._event_seq = 0
        self.former_subscriptions = 0
        self._record_behind(0)

    def _record_behind(self, seq: int) -> None:
        self.record = make_recorder(
            self._memory, self.words, self._buckets, self._layout.samples, seq
        )

    @classmethod
    def create(
        cls,
        directory: Path,
        connection: str,
        *,
        incarnation: int,
        ring_slots: int,
        lock_timeout_ns: int = LOCK_TIMEOUT_NS,
    ) -> "StatsWriter":
        """
        Take the connection over from its last incarnation and return the new segment.

        The head sequence number, counters and both rings go on where the predecessor stopped;
        histograms start anew. A predecessor of another layout is replaced and nothing goes on.

        Raises:
            SegmentLocked: If the predecessor still lives after ``lock_timeout_ns``.
            SegmentForeign: If the path holds something that is not ours.
            SegmentSpace: If the file system is too full.
            ValueError: If ``ring_slots`` or ``incarnation`` is impossible.

        """
        layout = stats_layout(ring_slots)
        path = stats_path(directory, connection)
        held = lock_predecessor(path, lock_timeout_ns)
        try:
            owned, temporary = segment.create(
                path,
                SegmentKind.STATS,
                layout.total,
                LAYOUT_HASH,
                name=connection,
                incarnation=incarnation,
                flags=register_writer(),
            )
            writer = cls(owned, layout)
            try:
                writer._describe()
                if held is not None:
                    writer._carry_over(path)
                segment.publish(owned, temporary)
            except BaseException:
                writer.close()
                temporary.unlink(missing_ok=True)
                raise
        finally:
            if held is not None:
                os.close(held)
        return writer

    def event(self, kind: int, monotonic_ns: int, wall_ns: int, body: bytes) -> int:
        """
        Add one event to the event ring; return its number, which goes on over incarnations.

        Raises:
            ValueError: If the body is longer than a record holds.

        """
        if len(body) > EVENT_BODY_MAX:
            raise ValueError(f"an event body has at most {EVENT_BODY_MAX} bytes, got {len(body)}")
        self._event_seq = seq = self._event_seq + 1
        head = EVENT_HEAD.pack(seq, monotonic_ns, wall_ns, kind, len(body), 0)
        packed = head + body.ljust(EVENT_BODY_MAX, b"\0") + EVENT_TAIL.pack(seq & LOW_HALF)
        offset = self._layout.events.offset + seq % EVENT_SLOTS * EVENT_BYTES
        self.words[Word.EVENT_INTENT] = seq
        self._memory[offset : offset + EVENT_BYTES] = packed
        self.words[Word.EVENT_PUBLISH] = seq
        return seq

    def close(self) -> None:
        """Let go of the segment; the file stays for the next incarnation and for readers."""
        for view in (self.words, self.counters, self._buckets):
            view.release()
        self._segment.close()

    def _describe(self) -> None:
        start = self._layout.counter_meta.offset
        self._memory[start : start + len(COUNTERS_TOLD)] = COUNTERS_TOLD
        self.words[Word.EPOCH] = self.epoch

    def _carry_over(self, path: Path) -> None:
        smallest = stats_bytes(SAMPLE_SLOTS_MIN)
        try:
            former = segment.open_readonly(path, SegmentKind.STATS, LAYOUT_HASH, smallest)
        except (SegmentVersion, SegmentTruncated, SegmentForeign):
            return  # it is ours (it was locked as ours), and of no use: a fresh beginning
        try:
            self._copy_from(former)
        finally:
            former.close()

    def _copy_from(self, former: segment.Segment) -> None:
        layout, memory = self._layout, former.memory
        if former.header.incarnation >= self.epoch:
            raise ValueError(
                f"incarnation {self.epoch} after {former.header.incarnation} of {former.path}"
            )
        hot = memory[layout.hot.offset : layout.hot.end]
        with memoryview(hot).cast("q") as words:
            if not _plausible(words):
                return  # garbage: nothing of it is believed
            for word in CARRIED_WORDS:
                self.words[word] = words[word]
            # Until they are back; should we be killed before, the next one waits for them, too.
            self.former_subscriptions = max(0, words[Word.SUBSCRIBERS])
            self.words[Word.SUBSCRIBERS] = self.former_subscriptions
        # A record that the predecessor did not finish was never published: its number is free. The
        # intent stays, for the half-overwritten slot comes along: readers must keep leaving it out.
        newest = self.words[Word.SAMPLE_PUBLISH]
        self._record_behind(newest)
        self._event_seq = self.words[Word.EVENT_PUBLISH]
        for section in (layout.counters, layout.events):
            self._memory[section.offset : section.end] = memory[section.offset : section.end]
        if former.header.total_bytes == layout.total:
            samples = layout.samples
            self._memory[samples.offset : samples.end] = memory[samples.offset : samples.end]
        else:  # its records stand in other slots
            self.words[Word.SAMPLE_FIRST] = newest + 1
