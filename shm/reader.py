"""Reader: a connection's measurements as numpy arrays, for anybody who may read the file.

The only importer of numpy here. A reader never writes and never slows a worker. What it returns is
a private copy that was checked; what was overwritten meanwhile is counted, never returned.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shm.directory import find_fleet
from shm.journal_reader import JournalReader
from shm.layout import (
    BUCKETS,
    LOW_HALF,
    SAMPLE,
    SAMPLE_BYTES,
    SAMPLE_FIELDS,
    SAMPLE_SLOTS_MIN,
    Counter,
    Histogram,
    Word,
    bucket_edges,
    stats_layout,
)
from shm.ordering import order_point
from shm.view import StatsView

SAMPLE_DTYPE = np.dtype(list(SAMPLE_FIELDS))
assert SAMPLE_DTYPE.itemsize == SAMPLE.size
PUBLIC_FIELDS = ["seq", "time_ns", "value_ns", "kind", "flags", "exchange_ns", "aux", "size"]
INDEX_DTYPE = np.dtype([("seq", "<u8"), ("position", "<i8"), ("size", "<u4")])
_UPPER_EDGES = np.array([bucket_edges(index)[1] for index in range(BUCKETS)], dtype=np.int64)


def attach(fleet: str, connection: str) -> "Reader":
    """
    Return a reader of a connection's segment.

    Args:
        fleet: The fleet's name; its directory is looked for in every readable
            ``/dev/shm/feedwarden-*``, our own user's first.
        connection: The connection's name.

    Raises:
        FileNotFoundError: If there is no such fleet, or the connection has no segment yet.
        SegmentError: If the file is foreign, cut short, or of another version.

    """
    directory = find_fleet(fleet)
    try:
        return Reader(directory, connection)
    except FileNotFoundError:
        names = ", ".join(sorted(path.stem for path in directory.glob("*.stats"))) or "none yet"
        raise FileNotFoundError(
            f"no segment of connection {connection!r} in {directory}; there are: {names}"
        ) from None


class Reader:
    """
    Samples, percentiles and counters of one connection; a context manager.

    A worker that is replaced writes a new file: ``refresh`` goes over to it.

    Attributes:
        lapped: Samples that were overwritten before this reader saw them, in all.
        bad_records: Records inside the valid window that were not what they must be. Not 0 means
            corruption or a broken memory order.

    """

    def __init__(self, directory: Path, connection: str) -> None:
        self._directory, self._connection = directory, connection
        self.lapped = 0
        self.bad_records = 0
        self._last_seen = 0
        self._journal: JournalReader | None = None
        self._view = StatsView.open(directory, connection)
        self._map()

    def _map(self) -> None:
        total = self._view.segment.header.total_bytes
        fixed = stats_layout(SAMPLE_SLOTS_MIN).samples.offset
        self._slots = (total - fixed) // SAMPLE_BYTES
        raw = np.frombuffer(self._view.segment.memory, dtype=np.uint8)
        self._ring = raw[fixed : fixed + self._slots * SAMPLE_BYTES]
        self._copy = np.empty_like(self._ring)

    @property
    def epoch(self) -> int:
        """The incarnation whose file this is."""
        return self._view.epoch

    @property
    def seq(self) -> int:
        """
        The connection's head sequence number.

        Raises:
            SegmentTruncated: If somebody cut the file; so do all that read from it.

        """
        self._view.require_whole()
        return self._view.words[Word.SEQ]

    @property
    def view(self) -> StatsView:
        """The hot words and counters below this reader."""
        return self._view

    def refresh(self) -> bool:
        """
        Go over to the segment of a later incarnation, if there is one; return whether.

        Raises:
            FileNotFoundError: If the fleet has ended and its segment is gone.

        """
        if not self._view.replaced():
            return False
        successor = StatsView.open(self._directory, self._connection)
        self._unmap()
        self._view = successor
        self._map()
        return True

    def samples(self) -> npt.NDArray[Any]:
        """
        Return the samples in the ring, oldest first.

        Returns:
            Structured array, shape (n,): seq u8, time_ns i8 (CLOCK_MONOTONIC), value_ns i8, kind
            u2 (``shm.layout.SampleKind``), flags u2, exchange_ns i8 (the exchange's clock), aux
            i8, size u4. Its own memory.

        """
        self._view.require_whole()
        words = self._view.words
        last = words[Word.SAMPLE_PUBLISH]
        order_point()
        self._copy[:] = self._ring  # through bytes: 20 times faster than through the structure
        order_point()
        intent = max(words[Word.SAMPLE_INTENT], last)  # it is at least that, or memory is corrupt
        oldest = max(intent - self._slots + 1, words[Word.SAMPLE_FIRST], 1)
        records = self._copy.view(SAMPLE_DTYPE)
        wanted = np.arange(oldest, max(last + 1, oldest), dtype=np.uint64)
        found = records[(wanted & np.uint64(self._slots - 1)).astype(np.intp)]
        good = (found["seq"] == wanted) & (
            found["seq_lo"] == (wanted & np.uint64(LOW_HALF)).astype(np.uint32)
        )
        self.bad_records += int(len(good) - np.count_nonzero(good))
        if self._last_seen:
            self.lapped += max(0, oldest - self._last_seen - 1)
        self._last_seen = max(self._last_seen, last)
        samples: npt.NDArray[Any] = found[good][PUBLIC_FIELDS].copy()
        return samples

    def histogram(self, name: str) -> npt.NDArray[np.uint64]:
        """
        Return the bucket counts of a histogram since this incarnation began.

        Args:
            name: ``rtt``, ``loop_lag`` or ``connect``.

        Returns:
            uint64, shape (4608,); bucket ``i`` holds ``shm.layout.bucket_edges(i)`` nanoseconds.

        Raises:
            KeyError: If there is no such histogram.

        """
        start = Histogram[name.upper()] * BUCKETS
        self._view.require_whole()
        with self._view.histograms[start : start + BUCKETS] as buckets:
            return np.array(buckets, dtype=np.uint64)

    def percentiles(
        self,
        name: str,
        quantiles: Iterable[float],
        since: npt.NDArray[np.uint64] | None = None,
    ) -> dict[float, int]:
        """
        Return percentiles in nanoseconds; empty if there is no sample.

        Each is the upper edge of the bucket that holds the true sample quantile, which is at most
        1/128 above it.

        Args:
            name: As for ``histogram``.
            quantiles: Percentages, 0 to 100.
            since: An earlier ``histogram`` of the same incarnation, to look at what came after.

        Raises:
            KeyError: If there is no such histogram.

        """
        counts = self.histogram(name)
        if since is not None:
            counts = counts - since
        cumulated = np.cumsum(counts)
        total = int(cumulated[-1])
        if not total:
            return {}
        result = {}
        for quantile in quantiles:
            rank = max(1, int(np.ceil(total * quantile / 100)))
            index = min(int(np.searchsorted(cumulated, rank)), BUCKETS - 1)  # if it is corrupt
            result[quantile] = int(_UPPER_EDGES[index])
        return result

    def frames(self, first: int, last: int) -> list[tuple[int, bytes]]:
        """
        Return published frames by sequence number, both ends inclusive (``JournalReader.frames``).

        Raises:
            FileNotFoundError: If the connection has no journal.
            SegmentError: If the journal is foreign, cut short, or of another version.

        """
        return self.journal().frames(first, last)

    def follow(
        self, after: int | None = None, *, poll_s: float = 0.0, timeout_s: float | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """
        Yield sequence numbers and frames as they are written (``JournalReader.follow``).

        Raises:
            FileNotFoundError: If the connection has no journal.
            SegmentError: If the journal is foreign, cut short, or of another version.

        """
        yield from self.journal().follow(after, poll_s=poll_s, timeout_s=timeout_s)

    def journal(self) -> JournalReader:
        """
        Return the reader of the connection's journal; it is closed with this one.

        Raises:
            FileNotFoundError: If the connection has no journal.
            SegmentError: If the journal is foreign, cut short, or of another version.

        """
        if self._journal is not None and self._journal.replaced():
            self._journal.close()
            self._journal = None
        if self._journal is None:
            self._journal = JournalReader.open(self._directory, self._connection)
        return self._journal

    def journal_index(self) -> npt.NDArray[Any]:
        """
        Return what the journal holds, oldest first.

        Returns:
            Structured array, shape (n,): seq u8, position i8 (bytes, as ``docs/shm-layout.md``
            counts them), size u4 (bytes of the frame). Its own memory.

        Raises:
            FileNotFoundError: If the connection has no journal.
            SegmentError: If the journal is foreign, cut short, or of another version.

        """
        return np.array(self.journal().records(), dtype=INDEX_DTYPE)

    def counters(self) -> dict[str, int]:
        """Return every counter by its lower-case name: totals over incarnations."""
        self._view.require_whole()
        return {counter.name.lower(): self._view.counters[counter] for counter in Counter}

    def _unmap(self) -> None:
        self._ring = self._copy  # the mapping cannot be closed under a living array
        self._view.close()

    def close(self) -> None:
        """Unmap. Arrays that were returned stay valid: they are copies."""
        if self._journal is not None:
            self._journal.close()
        self._unmap()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
