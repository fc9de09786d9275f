"""Calm: of most workers two words tell that nothing is to be done for them.

All of them are read four times a second, so it is done in few calls for all of them: most of what
an idle supervisor costs would be these looks.
"""

from operator import itemgetter
from typing import NamedTuple

from shm.layout import Word

LIVENESS_NS, EVENT_PUBLISH = int(Word.LIVENESS_NS), int(Word.EVENT_PUBLISH)
_stamp, _published = itemgetter(LIVENESS_NS), itemgetter(EVENT_PUBLISH)


class Calm(NamedTuple):
    """
    What to compare the words of a worker with, to see that nothing is to be done for it.

    Good until its ``WorkerMemory`` is asked for anything else; mind files that are cut.
    """

    words: "memoryview[int]"
    events: int  # EVENT_PUBLISH if there is no news
    warn_after_ns: int  # LIVENESS_NS may be so old


class CalmWorkers:
    """Those of a fleet that are calm, by name; kept by their keepers."""

    def __init__(self) -> None:
        self._calm: dict[str, Calm] = {}
        # Of all of them, side by side: what is compared with what.
        self._words: list[memoryview[int]] = []
        self._events: list[int] = []
        self._in_line = True
        self._patience_ns = self._fresh_until_ns = 0

    def __contains__(self, name: str) -> bool:
        """Whether a worker is calm."""
        return name in self._calm

    def __len__(self) -> int:
        """How many are."""
        return len(self._calm)

    def note(self, name: str, calm: Calm) -> None:
        """Have a worker that is calm, or is so in another way."""
        self._calm[name] = calm
        self._in_line = False

    def forget(self, name: str) -> None:
        """Have one less, if it was calm."""
        if self._calm.pop(name, None) is not None:
            self._in_line = False

    def restless(self, now_ns: int) -> list[str]:
        """Return those for whom something is to be done; time is CLOCK_MONOTONIC."""
        if not self._in_line:
            self._line_up()
        silent = list(map(_published, self._words)) == self._events
        if silent and now_ns > self._fresh_until_ns:  # before that none can be too old
            oldest_ns = min(map(_stamp, self._words), default=now_ns)
            self._fresh_until_ns = oldest_ns + self._patience_ns
        if silent and now_ns <= self._fresh_until_ns:
            return []
        return [
            name
            for name, (words, events, warn_after_ns) in self._calm.items()
            if words[EVENT_PUBLISH] != events or now_ns - words[LIVENESS_NS] > warn_after_ns
        ]

    def _line_up(self) -> None:
        self._in_line, self._fresh_until_ns = True, 0
        self._words = [calm.words for calm in self._calm.values()]
        self._events = [calm.events for calm in self._calm.values()]
        self._patience_ns = min((calm.warn_after_ns for calm in self._calm.values()), default=0)
