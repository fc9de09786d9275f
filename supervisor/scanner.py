"""Scanner: looks at every worker four times a second, and judges whose loop stands.

What one worker's memory holds, or what the system refuses at the moment, must not end the look at
the others: each is looked at by itself, and a kind of trouble is logged once.
"""

import logging
import time
from collections.abc import Callable, Mapping

from supervisor.keeper import Keeper
from supervisor.liveness import HostGuard, HostStall, Verdict
from supervisor.restart_facts import Hung, Tick

log = logging.getLogger("supervisor.scanner")


class Scanner:
    """
    The look at all workers of a fleet.

    Args:
        keepers: By name; may still be filled.
        on_stall: Called when the host, not a worker, stood still.

    """

    def __init__(
        self, keepers: Mapping[str, Keeper], on_stall: Callable[[HostStall], None]
    ) -> None:
        self._keepers, self._on_stall = keepers, on_stall
        self._guard = HostGuard()
        self._faults: set[tuple[str, str]] = set()

    def scan(self) -> None:
        """Relay, tick and judge every worker; never raises."""
        now_ns = time.monotonic_ns()
        verdicts: list[tuple[Keeper, Verdict]] = []
        for keeper in self._keepers.values():
            self.guarded(keeper.spec.name, self._look, keeper, now_ns, verdicts)
        self.guarded("", self._judge, now_ns, verdicts)

    def _look(self, keeper: Keeper, now_ns: int, verdicts: list[tuple[Keeper, Verdict]]) -> None:
        keeper.relay()
        keeper.handle(Tick(), now_ns)
        verdict = keeper.judge(now_ns)
        if verdict is not None:
            verdicts.append((keeper, verdict))

    def _judge(self, now_ns: int, verdicts: list[tuple[Keeper, Verdict]]) -> None:
        hung = sum(verdict is not Verdict.FRESH for _keeper, verdict in verdicts)
        patience_ns = max((k.spec.hang.timeout_ns for k in self._keepers.values()), default=0)
        stall = self._guard.scanned(
            now_ns, hung=hung, judged=len(verdicts), patience_ns=patience_ns
        )
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
