"""Orphan: a worker that loses its supervisor goes on for a while, or for ever, and finds the next.

The death is seen by pidfd, never by polling a number. The next supervisor writes the fleet's table
in its first moment, so whoever wrote that is ours from then on, whatever build it is of; should it
have died before we looked, it is lost like the one before.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from shm.layout import FLAG_KEEP
from shm.process import start_ticks
from shm.segment_lock import writer

LOOK_S = 0.25
GRACE_S = 5.0


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


class Guardian:
    """
    Whoever supervises this worker, one after the other, on the running loop.

    Args:
        pid: The first supervisor.
        ticks: Its start time.
        table: The fleet's table, which a supervisor writes.
        keep: Whether the worker goes on without one; the table of the supervisor that died has the
            last word.
        lost: Called when one has died, with the seconds until the end, ``None`` if none is set.
        end: Called when none has come within that time.

    """

    def __init__(
        self,
        pid: int,
        ticks: int,
        table: Path,
        *,
        keep: bool,
        lost: Callable[[float | None], None],
        end: Callable[[], None],
    ) -> None:
        self._table, self._keep, self._lost, self._end = table, keep, lost, end
        self._loop = asyncio.get_running_loop()
        self._former = pid, ticks
        self._timer: asyncio.Handle | None = None
        self._end_at: float | None = None
        self._watch = SupervisorWatch(pid, ticks, self._gone)

    def _gone(self) -> None:
        # Later, for the watch may still be in its making.
        self._timer = self._loop.call_soon(self._orphaned)

    def _orphaned(self) -> None:
        keep = self._keep
        with contextlib.suppress(OSError):  # no descriptor to be had
            written = writer(self._table)
            if written is not None and (written.pid, written.start_ticks) == self._former:
                keep = bool(written.flags & FLAG_KEEP)
        self._end_at = None if keep else self._loop.time() + GRACE_S
        self._lost(None if keep else GRACE_S)
        self._look()

    def _look(self) -> None:
        found = None
        with contextlib.suppress(OSError):
            found = writer(self._table)
        if found is not None and (found.pid, found.start_ticks) != self._former:
            self._former = found.pid, found.start_ticks
            self._keep = bool(found.flags & FLAG_KEEP)
            self._timer = None
            self._watch = SupervisorWatch(found.pid, found.start_ticks, self._gone)
        elif self._end_at is not None and self._loop.time() >= self._end_at:
            self._timer = None
            self._end()
        else:
            self._timer = self._loop.call_later(LOOK_S, self._look)

    def close(self) -> None:
        """Stop watching and waiting."""
        if self._timer is not None:
            self._timer.cancel()
        self._watch.close()
