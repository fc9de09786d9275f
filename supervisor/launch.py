"""Launch: the ``run`` verb from a fleet file to an exit code.

Order matters: everything that can be refused is refused before anything is started, and what is
started is ended in reverse. Signals are noted and stderr is made harmless before all that.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import uvloop

from supervisor import checked, descriptors, outcome
from supervisor.arbiter import Arbiter
from supervisor.capacity import refuse_if_too_large
from supervisor.errors import ForeignSupervisor, VariableRefused
from supervisor.exchange_process import ExchangeProcess
from supervisor.exit_codes import OK
from supervisor.fleet import Fleet
from supervisor.premises import Premises
from supervisor.quiet_logging import say, unstoppable
from supervisor.stop_signals import StopSignals

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def main(path: str) -> NoReturn:
    """Do ``run`` without the command line, and end the process with its exit code."""
    descriptors.fill_standard_streams()
    sys.exit(outcome.of(lambda: run(Path(path))))


def run(path: Path) -> int:
    """
    Run the fleet of a file in the foreground; return the exit code.

    Afterwards stop signals are ignored: the process is expected to end.

    Raises:
        FleetError: If the file, the machine, a directory or another supervisor forbids it.

    """
    logging.basicConfig(
        stream=sys.stderr,
        level=log_level(),
        format="%(asctime)s %(levelname).1s %(name)s %(message)s",
    )
    with unstoppable(), StopSignals() as signals:
        refuse_foreign_supervisor()
        key = checked.key_of(path)
        fleet = checked.recall(path, key)
        if fleet is None:
            fleet, key = checked.checking(path, _loaded)
        descriptors.prepare(len(fleet.connections))
        refuse_if_too_large(fleet)
        return _run(fleet, signals, lambda shm: checked.keep(fleet, key, shm))


def log_level() -> str:
    """
    Return the level of what is logged.

    Raises:
        VariableRefused: If FEEDWARDEN_LOG_LEVEL names none.

    """
    wanted = os.environ.get("FEEDWARDEN_LOG_LEVEL") or "INFO"
    if wanted.upper() not in LOG_LEVELS:
        raise VariableRefused(
            "FEEDWARDEN_LOG_LEVEL", wanted, f"name one of {', '.join(LOG_LEVELS)}"
        )
    return wanted.upper()


def _keeps_orphans(fleet: Fleet) -> bool:
    """Return whether workers outlive us: who sits at a terminal wants none to stay."""
    return fleet.orphans == "keep" or not (fleet.orphans or sys.stderr.isatty())


def _loaded(path: Path) -> Fleet:
    # Imported only where it is needed: that takes longer than everything else until READY.
    from supervisor.fleetfile import load

    return load(path)


def _run(fleet: Fleet, signals: StopSignals, keep: Callable[[Path], None]) -> int:
    with contextlib.ExitStack() as stack:
        if signals.asked:
            return OK
        premises = stack.enter_context(Premises(fleet))
        keep(premises.shm_dir)
        exchange = None
        if fleet.simulator is not None:
            exchange = ExchangeProcess(fleet.simulator, lambda: bool(signals.asked))
            stack.enter_context(exchange)
        if signals.asked:
            return OK
        main = Arbiter.run_fleet(
            fleet,
            premises,
            signals,
            exchange,
            lambda: _say_ready(fleet),
            keep_orphans=_keeps_orphans(fleet),
        )
        return uvloop.run(main)  # asyncio's own loop doubles what a look at the workers costs


def refuse_foreign_supervisor() -> None:
    """Raise ``ForeignSupervisor`` if supervisord is installed where our package stands."""
    for place in sys.path:
        with contextlib.suppress(OSError):
            if any(_is_supervisord(name) for name in os.listdir(place or ".")):
                raise ForeignSupervisor


def _is_supervisord(name: str) -> bool:
    # What importlib.metadata looks for, which takes 20 ms to import.
    return name.lower().startswith(("supervisor-", "supervisor.")) and name.endswith(
        (".dist-info", ".egg-info")
    )


def _say_ready(fleet: Fleet) -> None:
    say(f"READY {fleet.name} {len(fleet.connections)} workers")
