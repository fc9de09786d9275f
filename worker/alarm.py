"""Alarm: one timer of the running loop that follows a moment."""

import asyncio
import time
from collections.abc import Callable


class Alarm:
    """
    Rings once for the moment it was last set to.

    It may ring a little early: uvloop's timers have a grain of 1 ms. Whoever is woken looks at the
    clock, and sets it again.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._moment_ns: int | None = None

    def set(self, moment_ns: int | None) -> None:
        """Ring at a moment of CLOCK_MONOTONIC, nanoseconds; at once if it has passed."""
        if moment_ns == self._moment_ns:
            return
        self.cancel()
        self._moment_ns = moment_ns
        if moment_ns is not None:
            delay_s = max(0, moment_ns - time.monotonic_ns()) / 1e9
            self._timer = self._loop.call_later(delay_s, self._rung)

    def cancel(self) -> None:
        """Ring no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._moment_ns = None

    def _rung(self) -> None:
        self._timer = self._moment_ns = None
        self._ring()
