"""Winding down: the workers of a fleet are stopped, waited for, and killed if they do not end."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from supervisor.forks import Forks
from supervisor.keeper import Keeper
from supervisor.quiet_logging import say
from supervisor.restart_facts import KillWanted, StopWanted
from supervisor.restart_state import NO_PROCESS
from worker.announcement import Cause

log = logging.getLogger("supervisor.winding_down")

STILL_UP_S = 2.0  # so often somebody who waits is told for whom
END_S = 10.0  # beyond the longest stop_timeout: what is left then is killed
KILL_S = 1.0  # for deaths by SIGKILL to be seen
STOP = StopWanted(Cause.SHUTDOWN)


class WindingDown:
    """
    The end of a fleet's workers, on the running loop.

    Args:
        keepers: By name; may still be filled.
        forks: The fork helpers, which are killed with the workers.
        guarded: Called with name, function and arguments; does it and survives it.

    """

    def __init__(
        self, keepers: Mapping[str, Keeper], forks: Forks, guarded: Callable[..., None]
    ) -> None:
        self._keepers, self._forks, self._guarded = keepers, forks, guarded
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._end_by: float | None = None  # of the loop's clock, seconds

    async def stop(self) -> None:
        """Stop all and wait until none is left: for the longest stop_timeout, and a little more."""
        if self._end_by is None:
            longest_ns = max((k.spec.stop_timeout_ns for k in self._keepers.values()), default=0)
            self._end_by = self._loop.time() + longest_ns / 1e9 + END_S
        for name, keeper in self._keepers.items():
            self._guarded(name, keeper.handle, STOP)
        await self._until_at_rest()
        if up := self._still_up():
            log.error("killed at the end: %s", ", ".join(up))
            self.kill()
            await self._until_at_rest()

    def kill(self) -> None:
        """SIGKILL to all, and an end of the waiting whatever is left."""
        for keeper in self._keepers.values():
            keeper.handle(KillWanted("SIGKILL"))
            keeper.kill()
        self._forks.kill()
        self._end_by = self._loop.time() + KILL_S
        self._news.set()

    def look(self) -> None:
        """Notice that none is left. Call it when one may have gone."""
        if not self._still_up():
            self._news.set()

    async def _until_at_rest(self) -> None:
        """Wait until no worker is left, or until the time that was given for it has passed."""
        assert self._end_by is not None
        while self._still_up() and (left_s := self._end_by - self._loop.time()) > 0:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), min(STILL_UP_S, left_s))
            except TimeoutError:
                say(f"still up: {', '.join(self._still_up())} (Ctrl-C again kills)")

    def _still_up(self) -> list[str]:
        return [
            name for name, keeper in self._keepers.items() if keeper.life.state not in NO_PROCESS
        ]
