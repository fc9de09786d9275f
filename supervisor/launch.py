"""Launch: the ``run`` verb from a fleet file to an exit code.

Order matters: everything that can be refused is refused before anything is started, and what is
started is ended in reverse. Signals are noted and stderr is made harmless before all that.
"""

import contextlib
import importlib.metadata
from pathlib import Path

import uvloop

from supervisor import descriptors
from supervisor.arbiter import OK, Arbiter
from supervisor.check import refuse_if_too_large
from supervisor.errors import ForeignSupervisor
from supervisor.exchange_process import ExchangeProcess
from supervisor.fleetfile import Fleet, load
from supervisor.premises import Premises
from supervisor.quiet_logging import say, unstoppable
from supervisor.stop_signals import StopSignals


def run(path: Path) -> int:
    """
    Run the fleet of a file in the foreground; return the exit code.

    Afterwards stop signals are ignored: the process is expected to end.

    Raises:
        FleetError: If the file, the machine, a directory or another supervisor forbids it.

    """
    descriptors.open_missing()
    with unstoppable(), StopSignals() as signals:
        refuse_foreign_supervisor()
        fleet = load(path)
        descriptors.prepare(len(fleet.connections))
        refuse_if_too_large(fleet)
        return _run(fleet, signals)


def _run(fleet: Fleet, signals: StopSignals) -> int:
    with contextlib.ExitStack() as stack:
        if signals.asked:
            return OK
        premises = stack.enter_context(Premises(fleet))
        exchange = None
        if fleet.simulator is not None:
            exchange = ExchangeProcess(fleet.simulator, lambda: bool(signals.asked))
            stack.enter_context(exchange)
        if signals.asked:
            return OK
        main = Arbiter.run_fleet(fleet, premises, signals, exchange, lambda: _say_ready(fleet))
        return uvloop.run(main)  # asyncio's own loop doubles what a look at the workers costs


def refuse_foreign_supervisor() -> None:
    """Raise ``ForeignSupervisor`` if supervisord is installed where our package stands."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.distribution("supervisor")
        raise ForeignSupervisor


def _say_ready(fleet: Fleet) -> None:
    say(f"READY {fleet.name} {len(fleet.connections)} workers")
