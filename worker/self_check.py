"""Self check: before an exchange is called silent, whether it may be us who did not listen.

What waits in the socket is read first, and how long our own loop stood is known from a timer that
is due every 100 ms while a session is open.
"""

import asyncio
import time
from collections.abc import Callable

from worker.heartbeat_facts import Looked
from worker.loop_lag import LoopLag
from worker.wire import Wire

# Given to what waits in the socket before a death is believed, and with a flood that does not end.
LOOK_NS_MAX = 1_000_000_000
SAMPLE_S = 0.1


class SelfCheck:
    """
    One connection's, on the running loop.

    Args:
        wire: Gives the socket of the session that is open, ``None`` if there is none.
        told: Called with what a look found, unless the session has ended meanwhile.

    """

    def __init__(self, wire: Callable[[], Wire | None], told: Callable[[Looked], None]) -> None:
        self._wire, self._told = wire, told
        self._loop = asyncio.get_running_loop()
        self._lag = LoopLag()
        self._timer: asyncio.TimerHandle | None = None
        self._due_ns = 0

    def start(self) -> None:
        """Mind the loop from now on."""
        self.stop()
        self._due_ns = time.monotonic_ns()
        self._sample()

    def stop(self) -> None:
        """Mind it no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sample(self) -> None:
        now_ns = time.monotonic_ns()
        self._lag.note(now_ns, now_ns - self._due_ns)
        self._due_ns = now_ns + round(SAMPLE_S * 1e9)
        self._timer = self._loop.call_later(SAMPLE_S, self._sample)

    def look(self, since_ns: int) -> None:
        """Have what waits in the socket read; tell what remained, and our lag since that moment."""
        self._look(self._wire(), since_ns, time.monotonic_ns() + LOOK_NS_MAX, is_first=True)

    def _look(
        self, wire: Wire | None, since_ns: int, until_ns: int, *, is_first: bool = False
    ) -> None:
        if wire is None or wire is not self._wire():
            return
        # Under TLS these are bytes of the network; what they hold is decrypted in the same turn.
        unread = wire.pending_bytes()
        if is_first or (unread and time.monotonic_ns() < until_ns):
            # Two hops: a callback of this turn runs before the next poll, its own after it.
            again = lambda: self._loop.call_soon(self._look, wire, since_ns, until_ns)  # noqa: E731
            self._loop.call_soon(again)
            return
        self._told(Looked(unread, self._lag.since(since_ns)))
