"""Scanner: looks at every worker four times a second, and judges whose loop stands.

Of most it reads two words: a supervisor that has nothing to do shall not cost anything.

What one worker's memory holds, or what the system refuses at the moment, must not end the look at
the others: each is looked at by itself, and a kind of trouble is logged once.
"""

import logging
import time
from collections.abc import Callable, Mapping

from supervisor.calm import CalmWorkers
from supervisor.keeper import Keeper
from supervisor.liveness import HostGuard, HostStall, Verdict
from supervisor.pace import Pace, Storm
from supervisor.restart_facts import Hung, Tick
from supervisor.restart_state import NO_PROCESS

log = logging.getLogger("supervisor.scanner")

SELDOM_SCANS = 20  # so seldom specifications and memory are looked at: every 5 s
IDLE_SCANS = 4  # a connection without a process is looked at in every fourth


class Scanner:
    """
    The look at all workers of a fleet.

    Args:
        keepers: By name; may still be filled.
        calm: Those of whom two words are read, kept by the keepers.
        pace: Of the fleet's replacements.
        on_stall: Called when the host, not a worker, stood still.
        on_storm: Called when workers began to die faster than they may be replaced.

    """

    def __init__(
        self,
        keepers: Mapping[str, Keeper],
        calm: CalmWorkers,
        pace: Pace,
        on_stall: Callable[[HostStall], None],
        on_storm: Callable[[Storm], None],
    ) -> None:
        self._keepers, self._calm, self._pace = keepers, calm, pace
        self._on_stall, self._on_storm = on_stall, on_storm
        self._guard = HostGuard()
        self._faults: set[tuple[str, str]] = set()
        self._scans = self._patience_ns = 0

    def scan(self, *, closely: bool) -> None:
        """
        Relay, tick and judge every worker; never raises.

        Args:
            closely: Whether a segment may have been cut, so that no word is read unseen.

        """
        now_ns = time.monotonic_ns()
        if self._scans % SELDOM_SCANS == 0:
            specs = (keeper.spec for keeper in self._keepers.values())
            self._patience_ns = max((spec.hang.timeout_ns for spec in specs), default=0)
        self._scans += 1
        verdicts: list[tuple[Keeper, Verdict]] = []
        restless = list(self._keepers) if closely else self._restless(now_ns)
        quiet = len(self._keepers) - len(restless)
        for name in restless:
            self.guarded(name, self._look, self._keepers[name], now_ns, verdicts)
        self.guarded("", self._judge, now_ns, verdicts, quiet)
        if self._scans % SELDOM_SCANS == 0:
            for name, keeper in self._keepers.items():
                self.guarded(name, keeper.weigh)
        if (storm := self._pace.news()) is not None:
            self.guarded("", self._on_storm, storm)

    def _restless(self, now_ns: int) -> list[str]:
        """Return who must be looked at."""
        found = self._calm.restless(now_ns)
        if len(self._calm) < len(self._keepers):
            found += [name for name in self._keepers if name not in self._calm]
        return found

    def _look(self, keeper: Keeper, now_ns: int, verdicts: list[tuple[Keeper, Verdict]]) -> None:
        if self._scans % IDLE_SCANS and keeper.life.state in NO_PROCESS:
            return
        keeper.relay()
        keeper.handle(Tick(), now_ns)
        verdict = keeper.judge(now_ns)
        if verdict is not None:
            verdicts.append((keeper, verdict))

    def _judge(self, now_ns: int, verdicts: list[tuple[Keeper, Verdict]], quiet: int) -> None:
        hung = sum(verdict is not Verdict.FRESH for _keeper, verdict in verdicts)
        judged = len(verdicts) + quiet
        stall = self._guard.scanned(now_ns, hung=hung, judged=judged, patience_ns=self._patience_ns)
        if stall is not None:
            self._on_stall(stall)
        if now_ns >= self._guard.excused_until_ns:
            for keeper, verdict in verdicts:
                if verdict is Verdict.DEAD:
                    keeper.handle(Hung(keeper.liveness.age_ns), now_ns)

    def guarded(self, name: str, look: Callable[..., None], *arguments: object) -> None:
        """Do something for a connection that must not end what is done for the others."""
        try:
            look(*arguments)
        except Exception as error:
            kind = (name, type(error).__name__)
            if kind not in self._faults:
                self._faults.add(kind)
                log.exception("trouble, logged once of its kind connection=%s", name)
