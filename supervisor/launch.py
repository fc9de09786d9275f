"""Launch: the ``run`` verb from a fleet file to an exit code.

Order matters: everything that can be refused is refused before anything is started, and what is
started is ended in reverse.
"""

import asyncio
import contextlib
import importlib.metadata
import logging
import sys
from pathlib import Path

from supervisor.arbiter import Arbiter
from supervisor.check import refuse_if_too_large
from supervisor.errors import ForeignSupervisor
from supervisor.exchange_process import ExchangeProcess
from supervisor.fleetfile import Fleet, load
from supervisor.premises import Premises

log = logging.getLogger("supervisor.launch")


def run(path: Path) -> int:
    """
    Run the fleet of a file in the foreground; return the exit code.

    Raises:
        FleetError: If the file, the machine, a directory or another supervisor forbids it.

    """
    refuse_foreign_supervisor()
    fleet = load(path)
    refuse_if_too_large(fleet)
    with contextlib.ExitStack() as stack:
        premises = stack.enter_context(Premises(fleet))
        if fleet.simulator is not None:
            stack.enter_context(ExchangeProcess(fleet.simulator))
        return asyncio.run(Arbiter.run_fleet(fleet, premises, lambda: _say_ready(fleet)))


def refuse_foreign_supervisor() -> None:
    """Raise ``ForeignSupervisor`` if supervisord is installed where our package stands."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.distribution("supervisor")
        raise ForeignSupervisor


def _say_ready(fleet: Fleet) -> None:
    print(f"READY {fleet.name} {len(fleet.connections)} workers", file=sys.stderr, flush=True)
