"""Orphan: notices that the supervisor is gone, by pidfd and never by polling its number."""

import asyncio
import os
from collections.abc import Callable

from shm.process import start_ticks


class SupervisorWatch:
    """
    Calls ``gone`` once when a process has died, at once if it has already.

    Args:
        pid: The process.
        ticks: Its start time (``shm.process.start_ticks``); another process that took the number
            over is not mistaken for it.
        gone: Called on the running loop.

    """

    def __init__(self, pid: int, ticks: int, gone: Callable[[], None]) -> None:
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._pidfd = -1
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            gone()
            return
        # After pidfd_open, so that the number cannot have changed hands in between.
        if start_ticks(pid) == ticks:
            self._loop.add_reader(self._pidfd, self._died)
        else:
            self._died()

    def _died(self) -> None:
        self.close()
        self._gone()

    def close(self) -> None:
        """Stop watching."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
