"""Journal, the reader's side: frames by sequence number, and following the tail without ZeroMQ.

Needs no numpy. A reader never writes and never slows a worker; what it returns was copied and then
found not to have been overwritten meanwhile. It outlives the worker: what a killed one had
published is there until the ring comes around.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from shm import segment
from shm.errors import SegmentVersion
from shm.journal import journal_path
from shm.journal_layout import JOURNAL_HASH, PUBLISH, SIZE_MIN, journal_bytes
from shm.journal_ring import Frames, JournalRing
from shm.layout import WORD_MAX, SegmentKind

RESERVE_SHARE = 8  # of the ring: how far ahead of the writer a lapped follower goes on
IDLE_LOOK_S = 0.1  # how often an idle follower looks whether the file was replaced


class JournalReader:
    """The journal of one connection, mapped for reading; a context manager."""

    def __init__(self, ring: JournalRing) -> None:
        self._ring = ring

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
            return cls(JournalRing(mapped))
        except ValueError as error:
            mapped.close()
            raise SegmentVersion(path, str(error)) from error

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._ring.path

    @property
    def size(self) -> int:
        """Bytes of the ring."""
        return self._ring.size

    @property
    def last_seq(self) -> int:
        """The newest sequence number kept, 0 if none."""
        self._ring.require_whole()
        return self._ring.last_seq()

    @property
    def first_seq(self) -> int:
        """The oldest sequence number kept, 0 if none. Costs milliseconds: the index is searched."""
        self._ring.require_whole()
        return self._ring.first_seq()

    @property
    def frames_skipped(self) -> int:
        """How many frames were too long to be kept: more than a quarter of the ring."""
        self._ring.require_whole()
        return self._ring.frames_skipped

    @property
    def bad_records(self) -> int:
        """How many records were not what they must be: memory is corrupt."""
        return self._ring.bad_records

    def frames(self, first: int, last: int) -> Frames:
        """
        Return the frames with sequence numbers ``first`` to ``last``, both inclusive, in order.

        Each is whole, as it was published. Those that were overwritten, too long, or are not there
        yet are not in the list.

        Raises:
            SegmentTruncated: If somebody cut the file.

        """
        ring = self._ring
        ring.require_whole()
        found: Frames = []
        wanted = max(first, 1)
        while wanted <= last:
            position = ring.position_from(wanted, last)
            if position is None:
                break
            reached = ring.walk(position, wanted, last, found)
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
        self._ring.require_whole()
        return self._ring.records()

    def follower(self, after: int | None = None) -> "Follower":
        """
        Return a follower of the tail.

        Args:
            after: The last sequence number already known; by default what comes from now on.

        """
        return Follower(self._ring, after)

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
        return self._ring.replaced()

    def close(self) -> None:
        """Unmap."""
        self._ring.close()

    def __enter__(self) -> "JournalReader":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class Follower:
    """
    The tail of a journal, a look at a time.

    Attributes:
        lapped: How often the writer came around before the tail was read.
        seq: The last sequence number returned, or known before.

    """

    def __init__(self, ring: JournalRing, after: int | None) -> None:
        ring.require_whole()
        self._ring = ring
        self.lapped = 0
        self.seq = ring.last_seq() if after is None else after
        # Before the search: what is published meanwhile must not be passed over.
        head = ring.published()
        found = None if after is None else ring.position_from(after + 1, ring.last_seq())
        self._position: int | None = head if found is None else found

    def poll(self) -> Frames:
        """
        Return what was written since the last look, perhaps nothing; never waits.

        Raises:
            SegmentTruncated: If somebody cut the file.

        """
        ring = self._ring
        ring.require_whole()
        if self._position == ring.words[PUBLISH]:
            return []
        found: Frames = []
        if self._position is not None:
            self._position = ring.walk(self._position, self.seq + 1, WORD_MAX, found)
        if self._position is None:
            self.lapped += 1
            head = ring.published()
            found_at = ring.oldest_position(ring.size // RESERVE_SHARE)
            self._position = head if found_at is None else found_at
        if found:
            self.seq = found[-1][0]
        return found
