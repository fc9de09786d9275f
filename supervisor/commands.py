"""Commands: what an order from the command line does to the keepers."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

from supervisor.control import Order, Reply
from supervisor.reloading import Reloading
from supervisor.restart_facts import Event, KillWanted, RestartWanted, StartWanted, StopWanted
from supervisor.roster import Roster


class Commands:
    """
    Carries out orders.

    Args:
        file: That of ``run``.
        roster: The connections.
        reloading: Takes over a changed file.
        stop: Set while the fleet ends.
        shut_down: Called by a shutdown, with whether everything but us stays.

    """

    def __init__(
        self,
        file: Path,
        roster: Roster,
        reloading: Reloading,
        stop: asyncio.Event,
        shut_down: Callable[[bool], None],
    ) -> None:
        self._file, self._roster, self._reloading = file, roster, reloading
        self._stop, self._shut_down = stop, shut_down

    def obey(self, order: Order) -> Reply | asyncio.Future[Reply]:
        """Do at once what is ordered, or say why not."""
        if order.verb == "shutdown":
            self._shut_down(order.keep)
            return Reply()
        if self._stop.is_set():
            return Reply("the fleet is being shut down")
        if order.verb == "reload":
            path = Path(order.path or self._file)
            return asyncio.ensure_future(self._reloading.reload(path, dry_run=order.dry_run))
        keepers = self._roster.staying
        unknown = [name for name in order.names if name not in keepers]
        if unknown:
            return Reply(f"no connection {', '.join(unknown)}")
        if order.verb == "rotate":
            idle = [name for name in order.names if not keepers[name].rotate()]
            return Reply(lines=tuple(f"{name}: no session, nothing to rotate" for name in idle))
        if order.verb == "kill" and order.signal not in signal.Signals.__members__:
            return Reply(f"no signal {order.signal!r}")
        events: dict[str, Event] = {
            "start": StartWanted(),
            "stop": StopWanted(),
            "restart": RestartWanted(),
            "kill": KillWanted(order.signal),
        }
        for name in order.names:
            keepers[name].handle(events[order.verb])
        return Reply()
