"""Slow: subscribers whose queue was full, and for how long: the ``slow`` event.

Pure. libzmq tells that a queue is full once, when it becomes full, and neither whose it is nor when
it has room again. Both are asked of the kernel (``worker/peers.py``).
"""

from collections.abc import Callable

from worker.announcement import Announcement, EventKind

FIRST_LOOK_NS = 10_000_000
LOOK_NS = 100_000_000
CALM_NS = 1_000_000_000
# It reads again since the look before; libzmq takes note of that a moment later.
CALM_LOOKS = 2
PIDS_MAX = 16  # told in one event


class SlowWatch:
    """
    Episodes: from a full queue until nobody's has been full, and all have read, for a second.

    Args:
        stuck: Returns the connections that are full at the moment, each with its process. What is
            among them in two looks in a row is not read: a busy one is there now and then.

    """

    def __init__(self, stuck: Callable[[], dict[int, int]]) -> None:
        self._stuck = stuck
        self._seen: dict[int, int] = {}
        self._pids: set[int] = set()
        self._first = self._last = self._times = 0
        self._began_ns = self._troubled_ns = self._looked_ns = 0
        self._calm_looks = 0
        self._is_told = False

    @property
    def active(self) -> bool:
        """Whether there is an episode."""
        return self._times > 0

    def full(self, seq: int, now_ns: int) -> None:
        """A queue was full when ``seq`` was to be sent: its subscriber has lost it."""
        self._times += 1
        self._last, self._troubled_ns, self._calm_looks = seq, now_ns, 0
        if self._times == 1:
            self._first, self._began_ns, self._looked_ns = seq, now_ns, now_ns
            self._seen, self._pids, self._is_told = self._stuck(), set(), False

    def look(self, seq: int, now_ns: int) -> Announcement | None:
        """See how an episode goes on, ``seq`` being the head; return its begin or end to tell."""
        wait_ns = LOOK_NS if self._is_told else FIRST_LOOK_NS
        if not self.active or now_ns - self._looked_ns < wait_ns:
            return None
        self._looked_ns = now_ns
        seen, self._seen = self._seen, self._stuck()
        lasting = seen.keys() & self._seen.keys()
        self._pids.update(self._seen[link] for link in lasting)
        if lasting:
            self._last, self._troubled_ns, self._calm_looks = seq, now_ns, 0
        else:
            self._calm_looks += 1
            if self._calm_looks <= CALM_LOOKS:
                self._last = seq
        if not self._is_told:
            self._is_told = True
            return slow(first=self._first, pids=listed(self._pids))
        if now_ns - self._troubled_ns < CALM_NS:
            return None
        times, self._times = self._times, 0
        return slow(
            first=self._first,
            last=self._last,
            times=times,
            duration_s=round((self._troubled_ns - self._began_ns) / 1e9, 3),
            pids=listed(self._pids),
        )


def listed(pids: set[int]) -> list[int]:
    """Return the processes that an event names."""
    return sorted(pids - {0})[:PIDS_MAX]


def slow(**detail: object) -> Announcement:
    """Return a ``slow`` event."""
    return Announcement(kind=EventKind.SLOW, detail=detail)
