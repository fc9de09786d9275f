"""Topic watch: tells which topics of a connection fall silent, and which speak again.

The I/O shell of ``TopicSilence`` (``worker/silence.py``), for connections with ``publish.key``.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

from worker.announcement import Announcement, Cause, EventKind
from worker.silence import TopicSilence

SCANS = 4  # within the time that a topic may be silent
# An exchange that goes quiet makes all its topics stale at once. Telling it costs 25 us a topic, in
# which nothing is read, and the ring of events holds 256.
CHANGES_MAX = 50
PAUSE_S = 0.02


class TopicWatch:
    """
    The topics of one connection, on the running loop.

    Args:
        topics: Returns when each last had data, CLOCK_MONOTONIC ns.
        announce: Told of each that is stale or fresh.

    """

    def __init__(
        self, topics: Callable[[], Mapping[str, int]], announce: Callable[[Announcement], None]
    ) -> None:
        self._topics, self._announce = topics, announce
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def start(self, limit_ns: int) -> None:
        """Begin anew: a topic may be silent for so long, 0 for ever."""
        self.close()
        if limit_ns:
            self._scan(TopicSilence(limit_ns), limit_ns)

    def close(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _scan(self, silence: TopicSilence, limit_ns: int) -> None:
        changes = silence.scan(time.monotonic_ns(), self._topics(), CHANGES_MAX)
        pause_s = PAUSE_S if len(changes) == CHANGES_MAX else limit_ns / SCANS / 1e9
        self._timer = self._loop.call_later(pause_s, self._scan, silence, limit_ns)
        for key, stale, age_ns in changes:
            self._announce(
                Announcement(
                    kind=EventKind.STALE if stale else EventKind.FRESH,
                    cause=Cause.DATA_SILENCE if stale else "",
                    detail={"key": key, "age_s": round(age_ns / 1e9, 6)},
                )
            )
