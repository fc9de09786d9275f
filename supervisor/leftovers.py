"""Leftovers: processes that outlive whoever should have ended them.

Workers and the fork helper of a killed supervisor end by themselves, unless somebody stopped them:
then a worker holds its segment's lock for ever and its successor never gets it. They are found by
pid and start ticks, so that nobody else is taken for one of them.
"""

import contextlib
import logging
import os
import select
import signal
from collections.abc import Collection
from pathlib import Path

from shm.process import start_ticks
from shm.segment_lock import owner
from shm.stats import SUFFIX

log = logging.getLogger("supervisor.leftovers")

LOOK_NS = 1_000_000_000
ORPHAN_PATIENCE_NS = 9_000_000_000  # a running orphan ends after 5 s; successors wait for 10
DEATH_MS = 500

Process = tuple[int, int]  # pid and start ticks


class Leftovers:
    """
    What an earlier life of the fleet left running.

    Args:
        shm_dir: The fleet's segments; whoever holds one now is of the earlier life.
        helpers: The earlier life's fork helpers.
        now_ns: CLOCK_MONOTONIC.

    """

    def __init__(self, shm_dir: Path, helpers: list[Process], now_ns: int) -> None:
        owners = (owner(path) for path in shm_dir.glob(f"*{SUFFIX}"))
        self._orphans = [found for found in owners if found is not None]
        self._helpers = list(helpers)
        self._childless: set[Process] = set()
        self._began_ns = self._looked_ns = now_ns

    def look(self, now_ns: int) -> None:
        """End what will not end by itself. Cheap when there is nothing."""
        if not (self._orphans or self._helpers) or now_ns - self._looked_ns < LOOK_NS:
            return
        self._looked_ns = now_ns
        self._orphans = [process for process in self._orphans if alive(process)]
        self._helpers = [process for process in self._helpers if alive(process)]
        if now_ns - self._began_ns >= ORPHAN_PATIENCE_NS:
            for process in self._orphans:
                log.warning("a worker of an earlier life does not end: killed pid=%d", process[0])
                kill(process)
        for process in self._helpers:
            if living_children(process[0]):
                continue
            if process in self._childless:  # the second time: one that runs had ended by now
                log.warning("a fork helper of an earlier life is stuck: killed pid=%d", process[0])
                kill(process)
            self._childless.add(process)

    def end(self) -> None:
        """Kill whatever is left, for the fleet ends."""
        for process in (*self._orphans, *self._helpers):
            kill(process, wait_ms=DEATH_MS)


def alive(process: Process) -> bool:
    """Return whether exactly this process lives; a zombie does not."""
    with contextlib.suppress(OSError):
        return start_ticks(process[0]) == process[1] != 0
    return True


def kill(process: Process, wait_ms: int = 0) -> None:
    """SIGKILL exactly this process, and wait for its death for at most ``wait_ms``."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(process[0])
        try:
            # After pidfd_open, so that the number cannot have changed hands in between.
            if start_ticks(process[0]) == process[1] != 0:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                poll.poll(wait_ms)
        finally:
            os.close(pidfd)


def children(pid: int) -> list[int]:
    """Return the children of a process, zombies included."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def living_children(pid: int) -> list[int]:
    """Return the children of a process that are no zombies."""
    return [child for child in children(pid) if alive((child, start_ticks(child)))]


def kill_strays(known: Collection[int]) -> None:
    """
    Kill and reap children of ours that nobody knows.

    A fork helper that dies between fork and report leaves one: as subreaper we inherit it.
    """
    for pid in children(os.getpid()):
        if pid in known:
            continue
        log.warning("a worker that was never reported: killed pid=%d", pid)
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
