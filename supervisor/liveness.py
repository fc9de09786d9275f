"""Liveness: judges by its stamp whether a worker's loop turns, and whether the host itself stood.

Pure. It kills nobody: verdicts go to the shell (``supervisor/arbiter.py``). A stopped process is
not a dead one, so no pidfd tells what this module tells.
"""

import enum
from dataclasses import dataclass

from worker.spec import HangSpec

SCAN_NS = 250_000_000
LATE_NS = 500_000_000  # our own scan came this much too late: the host stood, not the workers


class Verdict(enum.Enum):
    """What a stamp's age says."""

    FRESH = "fresh"
    HUNG = "hung"  # older than warn_after: announced, once
    DEAD = "dead"  # older than timeout: to be replaced


class Liveness:
    """
    One worker's judge. ``age_ns`` is the stamp's age at the last judgement.

    Args:
        spec: The connection's ``hang`` table.

    """

    def __init__(self, spec: HangSpec) -> None:
        self._spec = spec
        self.verdict = Verdict.FRESH
        self.age_ns = 0

    def judge(self, now_ns: int, stamp_ns: int) -> Verdict:
        """
        Return the verdict on a stamp, both times of CLOCK_MONOTONIC.

        A stamp from the future (the writer was quicker than our clock read) is fresh.
        """
        self.age_ns = max(0, now_ns - stamp_ns)
        if self.age_ns <= self._spec.warn_after_ns:
            self.verdict = Verdict.FRESH
        elif self.age_ns <= self._spec.timeout_ns:
            self.verdict = Verdict.HUNG
        else:
            self.verdict = Verdict.DEAD
        return self.verdict


@dataclass(frozen=True, slots=True)
class HostStall:
    """The host, not a worker, stood still. ``late_ns`` is 0 if the workers' stamps showed it."""

    late_ns: int
    hung: int
    judged: int


class HostGuard:
    """
    Keeps a stopped host from being blamed on its workers.

    If our own scan came late, or at least three workers and more than half went silent at once,
    everybody gets one further ``hang.timeout`` of patience, once: a second stall within the
    patience of the first extends nothing, so that a fleet that really hangs is still replaced.
    The first scan has none before it, so nobody knows whether the host stood: it excuses likewise,
    and is no stall.
    """

    def __init__(self) -> None:
        self._last_scan_ns: int | None = None
        self._hung_before = 0
        self.excused_until_ns = 0

    def scanned(self, now_ns: int, *, hung: int, judged: int, patience_ns: int) -> HostStall | None:
        """
        Take one scan's result; return a stall to announce, if this scan shows one.

        Args:
            now_ns: CLOCK_MONOTONIC at the scan.
            hung: Workers whose stamp is older than their ``warn_after``.
            judged: Workers looked at.
            patience_ns: The longest ``hang.timeout`` of the fleet.

        """
        late_ns = 0
        if self._last_scan_ns is None:
            self.excused_until_ns = now_ns + patience_ns
        else:
            late_ns = now_ns - self._last_scan_ns - SCAN_NS
        self._last_scan_ns = now_ns
        at_once = judged >= 3 and hung * 2 > judged and self._hung_before * 2 <= judged
        self._hung_before = hung
        if not at_once and late_ns < LATE_NS:
            return None
        if now_ns < self.excused_until_ns:
            return None
        self.excused_until_ns = now_ns + patience_ns
        return HostStall(late_ns if late_ns >= LATE_NS else 0, hung, judged)
