"""The command line: arguments to calls, errors to exit codes. What is done is done elsewhere.

Data goes to stdout, everything else to stderr. Exit codes: 0 ok, 1 other, 2 usage or unknown name,
3 something is not up (``--check``), 4 already running, 5 configuration, 6 no such fleet running,
7 timed out.
"""

import functools
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from shm.errors import SegmentError
from supervisor import check as check_verb
from supervisor import exchange_process, launch, orders, streams, versions
from supervisor import status as status_verb
from supervisor.errors import FleetError
from supervisor.fleet_model import schema as fleet_schema
from supervisor.fleets import find

INTERRUPTED = 130
WATCH_S = 1.0

app = typer.Typer(
    name="supervisor",
    help="Keeps a fleet of exchange WebSocket connections alive, one process each.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The fleet.toml.")]
Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME...", help="Connections; globs are welcome.")
]
SomeNames = Annotated[
    list[str], typer.Argument(metavar="NAME...", help="Connections; globs are welcome.")
]
FleetOption = Annotated[
    str | None, typer.Option("--fleet", help="Which fleet; default: the only one running.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable, one document.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Machine-readable, one document a line.")]
WaitOption = Annotated[
    float, typer.Option("--wait", metavar="SECONDS", min=0, help="Wait until it came true.")
]


def verb(function: Callable[..., int]) -> Callable[..., int]:
    """Make a command of a function that returns its exit code, and turn errors into codes."""

    @functools.wraps(function)
    def command(*arguments: Any, **options: Any) -> int:
        try:
            code = function(*arguments, **options)
        except (FleetError, SegmentError) as error:
            print(f"supervisor: {error}", file=sys.stderr)
            code = error.exit_code if isinstance(error, FleetError) else 1
        except KeyboardInterrupt:
            code = INTERRUPTED
        except BrokenPipeError:  # `supervisor tap | head`: the reader has what it wanted
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        sys.exit(code)

    app.command()(command)
    return command


@verb
def run(file: FileArgument) -> int:
    """Run a fleet in the foreground; logs on stderr, Ctrl-C ends it orderly."""
    logging.basicConfig(
        stream=sys.stderr,
        level=os.environ.get("FEEDWARDEN_LOG_LEVEL", "INFO").upper(),
        format="%(asctime)s %(levelname).1s %(name)s %(message)s",
    )
    return launch.run(file)


@verb
def check(file: FileArgument, as_json: JsonOption = False) -> int:
    """Validate a fleet.toml, all faults at once, and print the plan."""
    return check_verb.check(file, as_json)


@verb
def schema() -> int:
    """Print the JSON Schema of fleet.toml, for editors."""
    print(json.dumps(fleet_schema(), indent=2))
    return 0


@verb
def status(
    names: Names = None,
    as_json: JsonOption = False,
    check: Annotated[bool, typer.Option("--check", help="Exit 3 if anything is not up.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again every second.")] = False,
    fleet: FleetOption = None,
) -> int:
    """Show every connection, worst first. Works when the supervisor is dead."""
    shm_dir = find(fleet, running=False)
    return status_verb.show(
        shm_dir, names or [], as_json=as_json, check=check, every_s=WATCH_S if watch else None
    )


@verb
def events(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with the fleet's next run.")
    ] = False,
    as_json: JsonLines = False,
    fleet: FleetOption = None,
) -> int:
    """Print the fleet's events as they happen, until the fleet ends."""
    return streams.print_events(fleet, follow=follow, as_json=as_json)


@verb
def tap(
    names: Names = None,
    count: Annotated[int, typer.Option("--count", min=0, help="Stop after so many.")] = 0,
    as_json: JsonLines = False,
    fleet: FleetOption = None,
) -> int:
    """Print messages as subscribers get them; gaps are flagged."""
    shm_dir = find(fleet, running=False)
    return streams.print_tap(shm_dir, names or [], count=count, as_json=as_json)


@verb
def start(names: SomeNames, wait: WaitOption = 0, fleet: FleetOption = None) -> int:
    """Start connections that are stopped or failed."""
    return orders.give("start", names, fleet=fleet, wait_s=wait)


@verb
def stop(names: SomeNames, wait: WaitOption = 0, fleet: FleetOption = None) -> int:
    """Stop connections; they stay stopped until started."""
    return orders.give("stop", names, fleet=fleet, wait_s=wait)


@verb
def restart(names: SomeNames, wait: WaitOption = 0, fleet: FleetOption = None) -> int:
    """Replace the workers of connections, whatever their state."""
    return orders.give("restart", names, fleet=fleet, wait_s=wait)


@verb
def kill(
    names: SomeNames,
    signal_name: Annotated[str, typer.Option("--signal", help="Which signal.")] = "SIGKILL",
    wait: WaitOption = 0,
    fleet: FleetOption = None,
) -> int:
    """Inject a fault: send workers a signal, and let the restart policy follow."""
    return orders.give("kill", names, fleet=fleet, wait_s=wait, signal_name=signal_name)


@verb
def shutdown(wait: WaitOption = 0, fleet: FleetOption = None) -> int:
    """End the fleet orderly."""
    return orders.give("shutdown", [], fleet=fleet, wait_s=wait)


@verb
def simulate(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free.")] = 9350,
    rate: Annotated[float, typer.Option("--rate", help="Messages a second per session.")] = 20.0,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 1,
    answer_delay: Annotated[
        float, typer.Option("--answer-delay", metavar="SECONDS", help="Added to every answer.")
    ] = 0.0,
) -> int:
    """Be an exchange: Binance, Bybit, OKX, Kraken and HTX, with faults on command."""
    return exchange_process.simulate(host, port, rate, seed, answer_delay)


@verb
def version(as_json: JsonOption = False) -> int:
    """Print the versions that matter in a bug report."""
    return versions.show(as_json)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    app()
