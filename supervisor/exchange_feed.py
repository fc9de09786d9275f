"""The data of the simulated exchange: a market that looks like trading, and when it is told."""

import random

TICK_S = 0.004
PAUSE_MAX_S = 0.1
BATCH_MAX = 500
BEHIND_MAX_S = 2.0


class Market:
    """A seeded random walk of one instrument: prices and sizes that look like trading."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._price = 60_000.0

    def trade(self) -> tuple[str, str, bool]:
        """Return price, size and whether the buyer was the maker."""
        self._price = max(1.0, self._price + self._random.gauss(0, 2))
        size = self._random.lognormvariate(-4, 1.5)
        return f"{self._price:.2f}", f"{size:.5f}", self._random.random() < 0.5

    def levels(self, count: int) -> list[list[str]]:
        """Return changed price levels of a book."""
        return [
            [f"{self._price + offset * 0.1:.2f}", f"{self._random.random() * 3:.5f}"]
            for offset in range(count)
        ]

    def wants_book(self) -> bool:
        """Return whether the next message is a book update; one in three is."""
        return self._random.random() < 1 / 3

    def depth(self) -> int:
        """Return how many levels a book update changes: mostly few, at times many."""
        return min(60, 1 + int(self._random.expovariate(1 / 6)))


class Feed:
    """
    Numbers of the data messages that are due, on an absolute timetable.

    Args:
        rate: Messages a second.

    Attributes:
        sent: How many were given out to be sent; the last one's number.
        skipped: How many a reader that stalled will never get.

    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._began_s = 0.0
        self._passed = 0  # of the timetable: sent, muted or skipped
        self.sent = self.skipped = 0

    @property
    def has_begun(self) -> bool:
        """Whether there is a subscription."""
        return self._began_s > 0

    @property
    def pause_s(self) -> float:
        """How long until it is worth looking again, seconds."""
        return max(TICK_S, min(1 / self._rate, PAUSE_MAX_S))

    def begin(self, now_s: float) -> None:
        """Start the timetable; every ``now_s`` is ``time.monotonic`` seconds."""
        self._began_s = now_s

    def take(self, now_s: float) -> range:
        """Return the numbers of the messages to send now, so many at once at most."""
        first = self.sent + 1
        count = min(self._due(now_s), BATCH_MAX)
        self._passed += count
        self.sent += count
        return range(first, first + count)

    def mute(self, now_s: float) -> None:
        """Let what is due pass unsaid."""
        self._passed += self._due(now_s)

    def hold(self, now_s: float) -> None:
        """Keep what is due for later, but for what is too old: that is skipped, and counted."""
        behind = self._due(now_s) - int(BEHIND_MAX_S * self._rate)
        if behind > 0:
            self._passed += behind
            self.skipped += behind

    def _due(self, now_s: float) -> int:
        return int((now_s - self._began_s) * self._rate) - self._passed
