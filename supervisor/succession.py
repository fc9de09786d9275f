"""Succession: a new supervisor takes over what an earlier one of the fleet left, however it ended.

Living workers are adopted as they are, with their counters, their backoff and what the operator
wants of them; only the dead are replaced. What lives and has no place in the fleet is ended.
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping

from shm.process import start_ticks
from shm.segment_lock import holder
from shm.stats import SUFFIX, stats_path
from supervisor.adoption import Estate, Living, find_living
from supervisor.forks import Forks
from supervisor.keeper import Keeper
from supervisor.leftovers import Leftovers
from supervisor.premises import Premises
from supervisor.restart_facts import SpawnFailed, StartWanted, Tick
from supervisor.restart_state import NO_PROCESS, State
from supervisor.slot import Slot
from worker.announcement import Cause

log = logging.getLogger("supervisor.succession")

UNSEEN = frozenset({State.STARTING, State.BACKOFF})  # a stray may hold the segment that it needs


class Succession:
    """
    The hand-over from one supervisor to the next, on the running loop.

    Args:
        estate: What the table told.
        premises: The fleet's directories.
        forks: The fork helpers, opened.
        now_ns: CLOCK_MONOTONIC.

    """

    def __init__(self, estate: Estate, premises: Premises, forks: Forks, now_ns: int) -> None:
        self._estate, self._premises, self._forks = estate, premises, forks
        self._living: dict[str, Living] = {}
        unused = (helper for helper in premises.former_helpers if helper[0] not in forks.helpers)
        self.leftovers = Leftovers(unused, now_ns)

    def find(self, names: Iterable[str]) -> set[str]:
        """Look who lives, and return the connections of those."""
        kept = self._forks.kept
        for name in names:
            former = self._estate.former.get(name)
            slot = former.slot if former is not None else None
            living = find_living(self._premises.shm_dir, name, slot, kept.get(name))
            if living is not None:
                self._living[name] = living
        return set(self._living)

    def take_over(
        self, keepers: Mapping[str, Keeper], guarded: Callable[..., None], now_ns: int
    ) -> int:
        """
        Have every keeper go on; return how many workers were adopted.

        Args:
            keepers: By name, as the table told of them.
            guarded: Called with name, function and arguments; does it and survives it.
            now_ns: CLOCK_MONOTONIC.

        """
        ours = {living.pid for name, living in self._living.items() if name in keepers}
        # Before the first fork: a worker that holds its segment already, and whose birth has not
        # been reported yet, would be taken for somebody else's.
        self._dismiss_others(ours, now_ns)
        for name, keeper in keepers.items():
            guarded(name, self._go_on, keeper, self._living.pop(name, None))
        return len(ours)

    def _go_on(self, keeper: Keeper, living: Living | None) -> None:
        former = self._estate.former.get(keeper.spec.name)
        if living is not None:
            keeper.adopt(living)
        elif former is not None:
            self._bury(keeper, former.slot)
        life = keeper.life
        if not life.wanted and life.stop_cause != Cause.OPERATOR:
            keeper.handle(StartWanted())
        moved = self._estate.runtime_dir not in (None, self._premises.runtime_dir)
        unreachable = not self._premises.data_socket(keeper.spec.name).exists()
        if living is not None and (moved or unreachable):
            log.warning("replaced, for its endpoint is elsewhere: connection=%s", keeper.spec.name)
        keeper.conform(moved=moved or unreachable)

    def _bury(self, keeper: Keeper, slot: Slot) -> None:
        """Tell the life what became of a process that is gone."""
        if slot.state in NO_PROCESS:
            keeper.handle(Tick())  # its next attempt may be due
        elif not slot.pid:
            keeper.handle(SpawnFailed("the supervisor that asked for it died"))
        else:
            end = self._forks.end_of(slot.pid)
            code, signal_name = (end.code, end.signal or None) if end is not None else (None, None)
            keeper.bury(slot.pid, code, signal_name)

    def _dismiss_others(self, ours: set[int], now_ns: int) -> None:
        """End the workers of connections that are none of the fleet's any more."""
        for path in self._premises.shm_dir.glob(f"*{SUFFIX}"):
            held = holder(path)
            if held is not None and held.pid not in ours:
                self.leftovers.dismiss((held.pid, held.start_ticks), now_ns)
        for kept in self._forks.kept.values():
            if kept.pid not in ours:
                self.leftovers.dismiss((kept.pid, start_ticks(kept.pid)), now_ns)

    def look(self, keepers: Mapping[str, Keeper], now_ns: int) -> None:
        """Once a second, end what nobody keeps, also if it showed itself only now."""
        if not self.leftovers.due(now_ns):
            return
        for name, keeper in keepers.items():
            if keeper.life.state not in UNSEEN:
                continue
            held = holder(stats_path(self._premises.shm_dir, name))
            if held is None or held.pid == keeper.pid:
                continue
            if not (keeper.spawning and held.incarnation == keeper.incarnation):
                self.leftovers.dismiss((held.pid, held.start_ticks), now_ns)
        self.leftovers.look(now_ns)

    def close(self) -> None:
        """Let go of those that were not taken over; they are left as they are."""
        for living in self._living.values():
            os.close(living.pidfd)
        self._living.clear()
