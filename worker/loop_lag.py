"""Loop lag: how long our own loop stood, so that a death can be told from our own absence.

Pure. In whole milliseconds: what is shorter cuts no connection.
"""

from collections import deque

STEP_NS = 1_000_000


class LoopLag:
    """The pauses of a loop: of all that ended since some moment, the longest."""

    def __init__(self) -> None:
        # When it ended, and how long. Each is longer than all that ended after it: no other can be
        # the answer, and as many steps as the longest has are all that there can be.
        self._pauses: deque[tuple[int, int]] = deque()

    def note(self, now_ns: int, lag_ns: int) -> None:
        """Take that what was due ``lag_ns`` ago runs at ``now_ns``, CLOCK_MONOTONIC."""
        lag_ns -= lag_ns % STEP_NS
        while self._pauses and self._pauses[-1][1] <= lag_ns:
            self._pauses.pop()
        if lag_ns > 0:
            self._pauses.append((now_ns, lag_ns))

    def since(self, since_ns: int) -> int:
        """Return the longest pause that ended after ``since_ns``, in ns."""
        return next((lag_ns for ended_ns, lag_ns in self._pauses if ended_ns > since_ns), 0)
