"""Leftovers: processes that outlive whoever should have ended them.

Workers of connections that are no more in the file, a worker that was forked in the moment in which
its supervisor and the fork helper died, helpers of an earlier life that are stopped. They are found
by pid and start ticks, so that nobody else is taken for one of them.
"""

import contextlib
import logging
import os
import select
import signal
from collections.abc import Collection, Iterable
from pathlib import Path

from shm.process import start_ticks

log = logging.getLogger("supervisor.leftovers")

LOOK_NS = 1_000_000_000
STRAY_PATIENCE_NS = 6_000_000_000  # from SIGTERM to SIGKILL; a worker ends within 5 s
DEATH_MS = 500

Process = tuple[int, int]  # pid and start ticks


class Leftovers:
    """
    What an earlier life of the fleet left running and nobody keeps.

    Args:
        helpers: The earlier life's fork helpers that are not in use.
        now_ns: CLOCK_MONOTONIC.

    """

    def __init__(self, helpers: Iterable[Process], now_ns: int) -> None:
        self._helpers = list(helpers)
        self._strays: dict[Process, int] = {}  # and when each was told to end
        self._childless: set[Process] = set()
        self._looked_ns = now_ns

    def dismiss(self, process: Process, now_ns: int) -> None:
        """Have a worker end that nobody keeps: told first, killed if it does not."""
        if process not in self._strays:
            self._strays[process] = now_ns
            log.warning("a worker that nobody keeps is told to end pid=%d", process[0])
            send(process, signal.SIGTERM, signal.SIGCONT)

    def due(self, now_ns: int) -> bool:
        """Return whether it is time to look, and take it for done."""
        if now_ns - self._looked_ns < LOOK_NS:
            return False
        self._looked_ns = now_ns
        return True

    def look(self, now_ns: int) -> None:
        """End what does not end by itself. Cheap when there is nothing."""
        self._strays = {process: ns for process, ns in self._strays.items() if alive(process)}
        self._helpers = [process for process in self._helpers if alive(process)]
        for process, told_ns in self._strays.items():
            if now_ns - told_ns >= STRAY_PATIENCE_NS:
                log.warning("a worker that nobody keeps does not end: killed pid=%d", process[0])
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
        for process in (*self._strays, *self._helpers):
            kill(process, wait_ms=DEATH_MS)


def alive(process: Process) -> bool:
    """Return whether exactly this process lives; a zombie does not."""
    with contextlib.suppress(OSError):
        return start_ticks(process[0]) == process[1] != 0
    return True


def send(process: Process, *numbers: signal.Signals, wait_ms: int = 0) -> None:
    """Signal exactly this process, and wait for its death for at most ``wait_ms``."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(process[0])
        try:
            # After pidfd_open, so that the number cannot have changed hands in between.
            if start_ticks(process[0]) == process[1] != 0:
                for number in numbers:
                    signal.pidfd_send_signal(pidfd, number)
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                poll.poll(wait_ms)
        finally:
            os.close(pidfd)


def kill(process: Process, wait_ms: int = 0) -> None:
    """SIGKILL exactly this process, and wait for its death for at most ``wait_ms``."""
    send(process, signal.SIGKILL, wait_ms=wait_ms)


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
