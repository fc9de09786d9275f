"""The command line: arguments to calls, errors to exit codes. What is done is done elsewhere.

Each verb imports what it needs: what checks a file or attaches to segments takes as long to import
as all the rest.

Data goes to stdout, everything else to stderr. Exit codes: 0 ok, 1 other, 2 usage or unknown name,
3 something is not up (``--check``), 4 already running, 5 configuration, 6 no such fleet running,
7 timed out, 130 interrupted.
"""

import functools
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from supervisor import descriptors, outcome
from supervisor.exchange_spec import DEFAULTS, RATE_MAX, SimulatorSpec
from supervisor.exit_codes import FAILED, OK

WATCH_S = 1.0
SIMULATED_MAX_S = 86_400.0
# Of these a reader takes what it wants and goes: `supervisor tap | head`.
STREAMS = ("status", "explain", "events", "tap")

app = typer.Typer(
    name="supervisor",
    help="Keeps a fleet of exchange WebSocket connections alive, one process each.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def a_number(value: float) -> float:
    """Refuse NaN, which passes every bound."""
    if math.isnan(value):
        raise typer.BadParameter("nan is not a number")
    return value


def an_address(text: str) -> str:
    """Refuse what names none."""
    if not text:
        raise typer.BadParameter("must name an address; 0.0.0.0 means all")
    return text


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
    float,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0,
        callback=a_number,
        help="Wait until it came true; 0: no.",
    ),
]


def verb(function: Callable[..., int]) -> Callable[..., int]:
    """Make a command of a function that returns its exit code, and turn errors into codes."""

    @functools.wraps(function)
    def command(*arguments: Any, **options: Any) -> int:
        sys.exit(
            outcome.of(
                functools.partial(function, *arguments, **options),
                streams=function.__name__ in STREAMS,
            )
        )

    app.command()(command)
    return command


def say_version(wanted: bool) -> None:
    """Print the versions and end."""
    from supervisor import versions

    if wanted:
        versions.show(as_json=False)
        raise typer.Exit


@app.callback()
def common(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=say_version, is_eager=True, help="As the verb version."),
    ] = False,
) -> None:
    """Keeps a fleet of exchange WebSocket connections alive, one process each."""


@verb
def run(file: FileArgument) -> int:
    """Run a fleet in the foreground; logs on stderr, Ctrl-C ends it orderly."""
    from supervisor import launch

    return launch.run(file)


@verb
def check(file: FileArgument, as_json: JsonOption = False) -> int:
    """Validate a fleet.toml, all faults at once, and print the plan."""
    from supervisor import check as check_verb

    return check_verb.check(file, as_json)


@verb
def schema() -> int:
    """Print the JSON Schema of fleet.toml, for editors."""
    from supervisor.fleet_model import schema as fleet_schema

    print(json.dumps(fleet_schema(), indent=2))
    return OK


@verb
def status(
    names: Names = None,
    as_json: JsonOption = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 3 if something wanted is not up.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again every second.")] = False,
    fleet: FleetOption = None,
) -> int:
    """Show every connection, worst first. Works when the supervisor is dead."""
    from supervisor import status as status_verb
    from supervisor.fleets import find

    shm_dir = find(fleet, running=False)
    return status_verb.show(
        shm_dir, names or [], as_json=as_json, check=check, every_s=WATCH_S if watch else None
    )


@verb
def explain(names: SomeNames, as_json: JsonLines = False, fleet: FleetOption = None) -> int:
    """Say why connections are in their state, what happens next and when."""
    from supervisor import explain as explain_verb
    from supervisor.fleets import find

    return explain_verb.show(find(fleet, running=False), names, as_json=as_json)


@verb
def events(
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Wait for the fleet, and go on with its next run."),
    ] = False,
    as_json: JsonLines = False,
    fleet: FleetOption = None,
) -> int:
    """Print the fleet's events as they happen, until the fleet ends."""
    from supervisor import streams

    return streams.print_events(fleet, follow=follow, as_json=as_json)


@verb
def tap(
    names: Names = None,
    count: Annotated[int, typer.Option("--count", min=0, help="Stop after so many; 0: go on.")] = 0,
    as_json: JsonLines = False,
    fleet: FleetOption = None,
) -> int:
    """Print messages as subscribers get them; gaps are flagged."""
    from supervisor import streams
    from supervisor.fleets import find

    shm_dir = find(fleet, running=False)
    return streams.print_tap(shm_dir, names or [], count=count, as_json=as_json)


@verb
def start(names: SomeNames, wait: WaitOption = 0, fleet: FleetOption = None) -> int:
    """Start connections that are stopped or failed."""
    from supervisor import orders

    return orders.give("start", names, fleet=fleet, wait_s=wait)


@verb
def stop(names: SomeNames, wait: WaitOption = 0, fleet: FleetOption = None) -> int:
    """Stop connections; they stay stopped until started."""
    from supervisor import orders

    return orders.give("stop", names, fleet=fleet, wait_s=wait)


@verb
def restart(
    names: SomeNames,
    rolling: Annotated[
        bool,
        typer.Option(
            "--rolling",
            help="One at a time, the next when the last is up; then --wait"
            " is for each, 60 by default.",
        ),
    ] = False,
    wait: WaitOption = 0,
    fleet: FleetOption = None,
) -> int:
    """Replace the workers of connections, whatever their state."""
    from supervisor import orders
    from supervisor import rolling as rolling_verb

    if rolling:
        return rolling_verb.restart(names, fleet=fleet, wait_s=wait)
    return orders.give("restart", names, fleet=fleet, wait_s=wait)


@verb
def rotate(names: SomeNames, wait: WaitOption = 0, fleet: FleetOption = None) -> int:
    """Replace the sessions of connections by fresh ones, made before the old ones are closed."""
    from supervisor import orders

    return orders.give("rotate", names, fleet=fleet, wait_s=wait)


@verb
def kill(
    names: SomeNames,
    signal_name: Annotated[str, typer.Option("--signal", help="SIGSTOP, STOP or 19.")] = "SIGKILL",
    wait: WaitOption = 0,
    fleet: FleetOption = None,
) -> int:
    """Inject a fault: send workers a signal, and let the restart policy follow."""
    from supervisor import orders

    return orders.give("kill", names, fleet=fleet, wait_s=wait, signal_name=signal_name)


@verb
def reload(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Default: the file of run.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    as_json: JsonOption = False,
    wait: WaitOption = 0,
    fleet: FleetOption = None,
) -> int:
    """Take over a changed fleet.toml, all of it or nothing; what has not changed is not touched."""
    from supervisor import orders

    return orders.give(
        "reload", [], fleet=fleet, wait_s=wait, file=file, dry_run=dry_run, as_json=as_json
    )


@verb
def shutdown(
    keep: Annotated[
        bool, typer.Option("--keep", help="End the supervisor alone; the next run goes on.")
    ] = False,
    wait: WaitOption = 0,
    fleet: FleetOption = None,
) -> int:
    """End the fleet orderly."""
    from supervisor import orders

    return orders.give("shutdown", [], fleet=fleet, wait_s=wait, keep=keep)


def seconds(name: str, text: str) -> Any:
    """Return an option of the simulator that is a number of seconds."""
    return typer.Option(
        name, metavar="SECONDS", min=0, max=SIMULATED_MAX_S, callback=a_number, help=text
    )


@verb
def simulate(
    host: Annotated[
        str, typer.Option("--host", callback=an_address, help="Address to listen on.")
    ] = DEFAULTS.host,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="0: any free.")
    ] = DEFAULTS.port,
    rate: Annotated[
        float,
        typer.Option(
            "--rate",
            min=0.001,
            max=RATE_MAX,
            callback=a_number,
            help="Messages a second per session.",
        ),
    ] = DEFAULTS.rate,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of everything random.")
    ] = DEFAULTS.seed,
    answer_delay: Annotated[float, seconds("--answer-delay", "Added to every answer.")] = 0,
    shared: Annotated[
        bool, typer.Option("--shared", help="One market for all sessions of an exchange.")
    ] = DEFAULTS.shared,
    max_age: Annotated[float, seconds("--max-age", "Close sessions of that age; 0: never.")] = 0,
    notice: Annotated[float, seconds("--notice", "Say so that long before; 0: not.")] = 0,
) -> int:
    """Be an exchange: Binance, Bybit, OKX, Kraken and HTX, with faults on command."""
    from supervisor import exchange_process

    return exchange_process.simulate(
        SimulatorSpec(
            host=host,
            port=port,
            rate=rate,
            seed=seed,
            answer_delay_s=answer_delay,
            shared=shared,
            max_age_s=max_age,
            notice_s=notice,
        )
    )


@verb
def doctor(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A fleet.toml to carry.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Check whether this machine is fit, and say how to mend it; exit 1 if something is not."""
    from supervisor import doctor as doctor_verb

    return doctor_verb.doctor(file, as_json=as_json)


@verb
def version(as_json: JsonOption = False) -> int:
    """Print the versions that matter in a bug report."""
    from supervisor import versions

    return versions.show(as_json)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    descriptors.fill_standard_streams()
    try:
        app()
    except OSError as error:  # of --help and --version: the verbs see to their own
        outcome.drop_output()
        outcome.complain(str(error))
        sys.exit(FAILED)
