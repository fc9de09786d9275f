"""Journal, the reader's side: frames by sequence number, and following the tail without ZeroMQ.

Needs no numpy. A reader never writes and never slows a worker; what it returns was copied and then
found not to have been overwritten meanwhile. It outlives the worker: what a killed one had
published is there until the ring comes around.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from shm import segment
from shm.errors import SegmentTruncated, SegmentVersion
from shm.journal import INTENT, LAST_SEQ, LOW_HALF, PUBLISH, SKIPPED, journal_path
from shm.journal_layout import (
    ALIGN,
    HEAD,
    JOURNAL_HASH,
    PADDING,
    SIZE_MIN,
    UNTOLD_MAX,
    index_slots,
    journal_bytes,
    ring_offset,
    ring_size,
)
from shm.layout import HEADER_BYTES, PAGE, SegmentKind
from shm.ordering import order_point

CHUNK = 256 * 1024  # copied at once; the less, the later a writer can come around to it
FRAME_GUESS = 2048
RESERVE_SHARE = 8  # of the ring: how far ahead of the writer a lapped follower goes on
IDLE_LOOK_S = 0.1  # how often an idle follower looks whether the file was replaced

Frames = list[tuple[int, bytes]]


class JournalReader:
    """
    The journal of one connection, mapped for reading; a context manager.

    Attributes:
        bad_records: Records that were not what they must be: memory is corrupt.

    """

    def __init__(self, mapped: segment.Segment) -> None:
        self._segment, self._memory = mapped, mapped.memory
        self._size = ring_size(mapped.header.total_bytes)
        self._start, self._slots = ring_offset(self._size), index_slots(self._size)
        whole = memoryview(mapped.memory)
        self._words = whole[HEADER_BYTES : HEADER_BYTES + PAGE].cast("q")
        self._index = whole[HEADER_BYTES + PAGE : self._start].cast("q")
        whole.release()
        self.bad_records = 0

    @classmethod
    def open(cls, directory: Path, connection: str) -> "JournalReader":
        """
        Map a connection's journal.

        Args:
            directory: The fleet's, as ``shm.directory.find_fleet`` finds it.
            connection: Its name.

        Raises:
            FileNotFoundError: If it has none: not yet, or ``publish.journal.size`` is 0.
            SegmentError: As ``shm.segment.open_readonly``.

        """
        path = journal_path(directory, connection)
        smallest = journal_bytes(SIZE_MIN)
        mapped = segment.open_readonly(path, SegmentKind.JOURNAL, JOURNAL_HASH, smallest)
        try:
            return cls(mapped)
        except ValueError as error:
            mapped.close()
            raise SegmentVersion(path, str(error)) from error

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._segment.path

    @property
    def size(self) -> int:
        """Bytes of the ring."""
        return self._size

    @property
    def last_seq(self) -> int:
        """The newest sequence number kept, 0 if none."""
        self._require_whole()
        last: int = self._words[LAST_SEQ]
        while self._position_of(last + 1) is not None:  # told later than published
            last += 1
        return last

    @property
    def first_seq(self) -> int:
        """The oldest sequence number kept, 0 if none. Costs milliseconds: the index is searched."""
        self._require_whole()
        position = self._oldest_position(0)
        head = self._head(position) if position is not None else None
        return 0 if head is None else self._whole_seq(head[1])

    @property
    def frames_skipped(self) -> int:
        """How many frames were too long to be kept: more than a quarter of the ring."""
        self._require_whole()
        return self._words[SKIPPED]

    def frames(self, first: int, last: int) -> Frames:
        """
        Return the frames with sequence numbers ``first`` to ``last``, both inclusive, in order.

        Each is whole, as it was published. Those that were overwritten, too long, or are not there
        yet are not in the list.

        Raises:
            SegmentTruncated: If somebody cut the file.

        """
        self._require_whole()
        found: Frames = []
        wanted = max(first, 1)
        while wanted <= last:
            position = self._position_from(wanted, last)
            if position is None:
                break
            reached = self._walk(position, wanted, last, found)
            wanted = found[-1][0] + 1 if found else wanted + 1
            if reached is not None:
                break  # the end of what was wanted or of what there is; else lapped: look again
        return found

    def records(self) -> list[tuple[int, int, int]]:
        """
        Return sequence number, position and bytes of every frame in the index, oldest first.

        Raises:
            SegmentTruncated: If somebody cut the file.

        """
        self._require_whole()
        publish, oldest = self._words[PUBLISH], self._oldest()
        found = []
        # A set: slots that no number has used yet are zero, which is the first record's position.
        positions = {at & -ALIGN for at in self._index.tolist() if oldest <= at < publish}
        for position in sorted(positions):
            head = self._head(position)
            if head is not None and not head[0] & PADDING:
                found.append((self._whole_seq(head[1]), position, head[0]))
        return found

    def follower(self, after: int | None = None) -> "Follower":
        """
        Return a follower of the tail.

        Args:
            after: The last sequence number already known; by default what comes from now on.

        """
        return Follower(self, after)

    def follow(
        self, after: int | None = None, *, poll_s: float = 0.0, timeout_s: float | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """
        Yield sequence numbers and frames as they are written, without ZeroMQ.

        A jump in the numbers is what was overwritten before it was read, or too long. The worker's
        restarts are not noticed: the numbers and the journal go on. Ends when another journal, or
        none, has taken its place (another size, or the fleet has ended).

        Args:
            after: As for ``follower``.
            poll_s: Sleep between looks, in seconds; 0 spins, which takes a core and no more than
                microseconds.
            timeout_s: End after so many seconds without a frame; by default never.

        Raises:
            SegmentTruncated: If somebody cut the file.

        """
        follower = self.follower(after)
        heard_s = looked_s = time.monotonic()
        while True:
            frames = follower.poll()
            if frames:
                yield from frames
                heard_s = time.monotonic()
                continue
            if poll_s:
                time.sleep(poll_s)
            now_s = time.monotonic()
            if timeout_s is not None and now_s - heard_s >= timeout_s:
                return
            if now_s - looked_s >= IDLE_LOOK_S:
                looked_s = now_s
                if self.replaced():
                    return

    def replaced(self) -> bool:
        """Return whether another file has taken its place, or none: open it anew."""
        return self._segment.replaced()

    def close(self) -> None:
        """Unmap."""
        self._words.release()
        self._index.release()
        self._segment.close()

    def __enter__(self) -> "JournalReader":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    # Inside ----------------------------------------------------------------------------------

    def _require_whole(self) -> None:
        """Raise before memory is touched that somebody may have cut off."""
        if self._segment.truncated():  # reading on would be SIGBUS
            raise SegmentTruncated(self._segment.path, "was cut while it was read")

    def _oldest(self) -> int:
        """Return the position before which memory may be overwritten."""
        order_point()
        return max(0, self._words[INTENT] - self._size)

    def _published(self) -> int:
        """Return the position up to which records are whole; a multiple, whatever memory says."""
        published: int = self._words[PUBLISH] & -ALIGN
        return published

    def _copy(self, position: int, length: int) -> bytes | None:
        """Return bytes that lie in one piece, ``None`` if they may be torn."""
        self._require_whole()
        start = self._start + position % self._size
        copied = self._memory[start : start + length]
        return copied if position >= self._oldest() else None

    def _head(self, position: int) -> tuple[int, int] | None:
        raw = self._copy(position, HEAD.size)
        return None if raw is None else HEAD.unpack(raw)

    def _whole_seq(self, low: int) -> int:
        """Return the sequence number near the newest one whose low half this is."""
        newest = self._words[LAST_SEQ] + UNTOLD_MAX  # at the most
        return newest - ((newest - low) & LOW_HALF)

    def _position_of(self, seq: int) -> int | None:
        """Return where a record stands, by the index."""
        position = self._index[seq % self._slots]
        if not self._oldest() <= position < self._words[PUBLISH] or position % ALIGN:
            return None
        head = self._head(position)
        return position if head is not None and head[1] == seq & LOW_HALF else None

    def _position_from(self, first: int, last: int) -> int | None:
        """Return where the first record of a range stands that is still there."""
        position = self._position_of(first)
        if position is None:
            oldest = self._oldest_position(0)
            head = None if oldest is None else self._head(oldest)
            if head is not None and (seq := self._whole_seq(head[1])) >= first:
                return oldest if seq <= last else None
            newest = self.last_seq
            for seq in range(max(first + 1, newest - self._slots), min(last, newest) + 1):
                # The first ones were too long to be kept.
                if (position := self._position_of(seq)) is not None:
                    break
        return position

    def _oldest_position(self, reserve: int) -> int | None:
        """Return the first record in the index that stands ``reserve`` bytes before the writer."""
        positions: list[int] = self._index.tolist()
        publish, oldest = self._published(), self._oldest() + reserve
        position: int = min((at for at in positions if oldest <= at < publish), default=publish)
        position &= -ALIGN
        end = min(publish, position + self._size)  # a lap, should memory be corrupt
        while position < end:
            head = self._head(position)
            if head is None or not head[0] & PADDING:
                return position
            # A killed writer's unfinished record, covered; of no length if memory is corrupt.
            position += max(head[0] & ~PADDING & -ALIGN, HEAD.size)
        return None

    def _walk(self, position: int, first: int, last: int, found: Frames) -> int | None:
        """
        Add the records from a position to ``found``.

        Returns:
            The position where to go on, ``None`` if the writer has come around.

        """
        size, publish = self._size, self._published()
        order_point()
        newest = self._words[LAST_SEQ] + UNTOLD_MAX  # at least: nothing published has a higher one
        wanted_bytes = min(CHUNK, (last - first + 1) * FRAME_GUESS)
        while position < publish:
            in_one_piece = min(size - position % size, publish - position)
            chunk = self._copy(position, min(in_one_piece, wanted_bytes))
            if chunk is None:
                return None
            at, wanted_bytes = 0, CHUNK
            while at < len(chunk):
                length, low = HEAD.unpack_from(chunk, at)
                padding = bool(length & PADDING)
                whole: int = (length & ~PADDING if padding else length + 15) & -ALIGN
                if not HEAD.size <= whole <= in_one_piece - at:
                    self.bad_records += 1
                    return publish  # nothing behind it can be found
                if at + whole > len(chunk):
                    wanted_bytes = max(whole, CHUNK)
                    break
                seq = newest - (newest - low & LOW_HALF)
                if seq > last and not padding:
                    return position + at
                if seq >= first and not padding:
                    found.append((seq, chunk[at + HEAD.size : at + HEAD.size + length]))
                    if seq == last:
                        return position + at + whole
                    first = seq + 1  # numbers only grow, or memory is corrupt
                at += whole
            position += at
        return position


class Follower:
    """
    The tail of a journal, a look at a time.

    Attributes:
        lapped: How often the writer came around before the tail was read.
        seq: The last sequence number returned, or known before.

    """

    def __init__(self, reader: JournalReader, after: int | None) -> None:
        reader._require_whole()
        self._reader = reader
        self.lapped = 0
        self.seq = reader.last_seq if after is None else after
        # Before the search: what is published meanwhile must not be passed over.
        head = reader._published()
        found = None if after is None else reader._position_from(after + 1, reader.last_seq)
        self._position: int | None = head if found is None else found

    def poll(self) -> Frames:
        """
        Return what was written since the last look, perhaps nothing; never waits.

        Raises:
            SegmentTruncated: If somebody cut the file.

        """
        reader = self._reader
        reader._require_whole()
        if self._position == reader._words[PUBLISH]:
            return []
        found: Frames = []
        if self._position is not None:
            self._position = reader._walk(self._position, self.seq + 1, 1 << 62, found)
        if self._position is None:
            self.lapped += 1
            head = reader._published()
            found_at = reader._oldest_position(reader._size // RESERVE_SHARE)
            self._position = head if found_at is None else found_at
        if found:
            self.seq = found[-1][0]
        return found
