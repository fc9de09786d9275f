"""Commands: what an order from the command line does to the keepers."""

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from supervisor.control import Order, Reply
from supervisor.errors import FleetError
from supervisor.fleetfile import Fleet, load
from supervisor.keeper import Keeper
from supervisor.reload import plan
from supervisor.restart_facts import Event, KillWanted, RestartWanted, StartWanted, StopWanted


class Commands:
    """
    Carries out orders.

    Args:
        fleet: As started.
        keepers: By name.
        stop: Set by a shutdown.

    """

    def __init__(self, fleet: Fleet, keepers: Mapping[str, Keeper], stop: asyncio.Event) -> None:
        self._fleet, self._keepers, self._stop = fleet, keepers, stop

    def obey(self, order: Order) -> Reply:
        """Do at once what is ordered, or say why not."""
        if order.verb == "shutdown":
            self._stop.set()
            return Reply()
        if self._stop.is_set():
            return Reply("the fleet is being shut down")
        if order.verb == "reload":
            return self._reload(Path(order.path or self._fleet.file), dry_run=order.dry_run)
        unknown = [name for name in order.names if name not in self._keepers]
        if unknown:
            return Reply(f"no connection {', '.join(unknown)}")
        if order.verb == "kill" and order.signal not in signal.Signals.__members__:
            return Reply(f"no signal {order.signal!r}")
        events: dict[str, Event] = {
            "start": StartWanted(),
            "stop": StopWanted(),
            "restart": RestartWanted(),
            "kill": KillWanted(order.signal),
        }
        for name in order.names:
            self._keepers[name].handle(events[order.verb])
        return Reply()

    def _reload(self, path: Path, *, dry_run: bool) -> Reply:
        try:
            wanted = load(path)
            if wanted.name != self._fleet.name:
                return Reply(f"{path} is fleet {wanted.name!r}, not {self._fleet.name!r}", code=5)
            moved = wanted.runtime_dir if wanted.runtime_dir != self._fleet.runtime_dir else None
            former = {name: keeper.spec for name, keeper in self._keepers.items()}
            found = plan(former, {spec.name: spec for spec in wanted.connections}, moved)
        except FleetError as error:
            return Reply(str(error), code=error.exit_code)
        if not dry_run:
            for spec in found.resubscribed:
                self._keepers[spec.name].respecify(spec)
        return Reply(lines=tuple(found.lines()))


def absolute(path: Path | None) -> str:
    """Return a path that means the same in the supervisor's process, "" for its own file."""
    return "" if path is None else os.fspath(path.absolute())
