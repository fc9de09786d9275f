"""Roster: the connections that a supervisor keeps; they come and go while it runs.

A connection that shall go is stopped first and is gone once it has no process: only then are its
line of the registry, its listener and its files taken away. Until then it may be wanted again.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence

from shm.errors import SegmentError
from supervisor.errors import FleetError
from supervisor.forks import Forks
from supervisor.household import Household
from supervisor.keeper import Keeper
from supervisor.premises import Premises
from supervisor.registry import Registry
from supervisor.restart_facts import StopWanted
from supervisor.restart_state import NO_PROCESS
from supervisor.slot import Former
from worker.announcement import Cause
from worker.spec import ConnectionSpec

NOBODY: Mapping[str, Former] = {}

log = logging.getLogger("supervisor.roster")


class Roster:
    """
    Who is kept.

    Args:
        keepers: By name, filled here and read by everybody else; those that are going are in it.
        premises: The fleet's directories.
        forks: Binds and forgets listeners.
        registry: Has a slot a connection.
        household: What the keepers share.

    """

    def __init__(
        self,
        keepers: dict[str, Keeper],
        premises: Premises,
        forks: Forks,
        registry: Registry,
        household: Household,
    ) -> None:
        self._keepers, self._premises, self._forks = keepers, premises, forks
        self._registry, self._household = registry, household
        self._going: set[str] = set()
        self._held = False

    @property
    def keepers(self) -> Mapping[str, Keeper]:
        """All connections by name, those that are going among them."""
        return self._keepers

    @property
    def staying(self) -> dict[str, Keeper]:
        """The connections that nobody dismissed, by name."""
        return {name: keeper for name, keeper in self._keepers.items() if name not in self._going}

    async def bind(self, specs: Sequence[ConnectionSpec]) -> None:
        """
        Have the data endpoints of connections to come bound: all of them, or none.

        Raises:
            FleetError: If something foreign is in the way, or a path cannot be bound.

        """
        fresh = [spec for spec in specs if spec.name not in self._keepers]
        self._premises.admit(fresh)
        try:
            for spec in fresh:
                await self._forks.listen(spec.name)
        except BaseException:
            self.unbind(fresh)
            raise

    def unbind(self, specs: Iterable[ConnectionSpec]) -> None:
        """Undo ``bind`` for connections that are not admitted."""
        for spec in specs:
            self._forget(spec.name)

    def admit(self, specs: Sequence[ConnectionSpec], former: Mapping[str, Former] = NOBODY) -> None:
        """
        Keep more connections, each stopped until it is told to start; one that was going stays.

        Their endpoints are bound already.

        Args:
            specs: The connections.
            former: What an earlier supervisor left, by name: these stand as they stood then.

        Raises:
            SegmentError: If there is no room for their lines; then nobody is admitted.

        """
        fresh = [spec for spec in specs if spec.name not in self._keepers]
        self._registry.renew([*self._keepers, *(spec.name for spec in fresh)])
        for spec in fresh:
            keeper = Keeper(spec, self._household, self._registry.slot_writer(spec.name))
            self._keepers[spec.name] = keeper
            if spec.name in former:
                keeper.recall(former[spec.name])
            else:
                keeper.save()
        self._going.difference_update(spec.name for spec in specs)

    def dismiss(self, name: str) -> None:
        """Stop a connection, and forget it once its process is gone."""
        self._going.add(name)
        self._keepers[name].handle(StopWanted(Cause.CONFIG))
        self.settle()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let nobody go meanwhile."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            self.settle()

    def settle(self) -> None:
        """Forget who is to go and has no process any more. Call it when a process may have gone."""
        if self._held or not self._going:
            return
        gone = [name for name in self._going if _is_at_rest(self._keepers[name])]
        for name in gone:
            self._going.remove(name)
            self._keepers.pop(name).close()
            self._forget(name)
        if gone:
            try:
                self._registry.renew(list(self._keepers))
            except SegmentError as error:  # their lines stay, as of connections that are stopped
                log.error("%s", error)

    def _forget(self, name: str) -> None:
        self._forks.unlisten(name)
        try:
            self._premises.dismiss(name)
        except (FleetError, OSError) as error:
            log.error("cannot clear up connection=%s error=%s", name, error)

    def close(self) -> None:
        """Let go of all of them; their processes are left as they are."""
        for keeper in self._keepers.values():
            keeper.close()


def _is_at_rest(keeper: Keeper) -> bool:
    return keeper.life.state in NO_PROCESS and not keeper.spawning
