"""Process memory: how much a worker holds, against what its operator allows.

Measured as resident pages that belong to no file (RssAnon of proc_pid_status(5)): what a leak
grows. Segments in shared memory and code that all workers share are not in it. The exact share of
shared pages (smaps_rollup) would cost a walk through the page tables.
"""

import enum
import os
from dataclasses import dataclass

from worker.spec import ProcessSpec

REARM = 0.9  # of the soft limit: who falls below it crosses it anew
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Limit(enum.StrEnum):
    """Which limit was crossed; the key of ``process``."""

    SOFT = "memory_soft"
    HARD = "memory_hard"


@dataclass(frozen=True, slots=True)
class Crossing:
    """A worker holds ``held`` bytes, more than the ``allowed`` of a limit."""

    limit: Limit
    held: int
    allowed: int


class MemoryWatch:
    """One process's judge."""

    def __init__(self) -> None:
        self._above = False

    def judge(self, spec: ProcessSpec, held: int) -> Crossing | None:
        """Judge the bytes held; the soft limit is told once a crossing, the hard one always."""
        soft, hard = spec.memory_soft, spec.memory_hard
        if hard and held > hard:
            return Crossing(Limit.HARD, held, hard)
        if not soft or held < soft * REARM:
            self._above = False
        elif held > soft and not self._above:
            self._above = True
            return Crossing(Limit.SOFT, held, soft)
        return None


def held_by(pid: int) -> int:
    """Return the bytes that a process holds for itself, 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            _size, resident, shared = file.read(128).split()[:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * PAGE_BYTES
