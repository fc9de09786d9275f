"""CPU per message from socket to PUB, and throughput: everybody in turns, plain and over TLS."""

import contextlib
from dataclasses import dataclass

from bench import names
from bench.children import Failed
from bench.contenders import PROGRAMS, Field, Run, has_journal
from bench.figures import alternated
from bench.goals import HOT_LOADS
from bench.options import Options, accepts, certificates, has_library

FULL_JOURNAL = "64MiB"  # of the one whose subscriber repairs
OURS = (names.OURS, names.OURS_QUIET, names.OURS_SUBSCRIBER, names.OURS_WEBSOCKETS)


@dataclass(frozen=True, slots=True)
class Load:
    """Messages a second (0: as fast as they are read), in one write, in all."""

    name: str
    rate: int
    burst: int
    count: int

    def arguments(self, quick: bool) -> dict:
        """Return them as the exchange takes them."""
        count = self.count // 5 if quick else self.count
        return {"rate": self.rate, "burst": self.burst, "count": count}


LOADS = (
    Load(HOT_LOADS[0], 10_000, 1, 20_000),
    Load(HOT_LOADS[1], 10_000, 20, 20_000),
    Load(HOT_LOADS[2], 50_000, 100, 100_000),
)
BLAST = Load("as fast as it reads", 0, 1, 400_000)


def run(options: Options) -> None:
    """Measure CPU per message."""
    with certificates(options.subfolder()) as files:
        for scheme, title in names.SCHEMES.items():
            tls = scheme == "wss"
            with _field(options, files if tls else None, few=options.quick and tls) as field:
                for load in LOADS[:2] if options.quick else LOADS:
                    _cpu(options, field, f"{title}, {load.name}", load)


def run_throughput(options: Options) -> None:
    """Measure messages a second, and what of them is lost."""
    with certificates(options.subfolder()) as files:
        for scheme, title in names.SCHEMES.items():
            tls = scheme == "wss"
            with _field(options, files if tls else None, few=options.quick, repaired=True) as field:
                _rates(options, field, title)


def _field(options: Options, files, *, few: bool = False, repaired: bool = False) -> Field:
    """Return everybody, or of the peers those whom the goals name; with ours that repairs."""
    wanted_peers = (names.FLOOR, names.BY_HAND) if few else None
    field = Field(options, files)
    with contextlib.ExitStack() as undo:
        undo.push(field)
        wanted = {names.OURS: ("a", {}), names.OURS_QUIET: ("q", {})}
        if repaired and has_library() and has_journal():
            wanted[names.OURS_SUBSCRIBER] = ("b", {"journal": FULL_JOURNAL})
        elif repaired:
            field.absent[names.OURS_SUBSCRIBER] = "not available"
        if accepts('engine = "picows"\n'):
            wanted[names.OURS_WEBSOCKETS] = ("w", {"engine": "websockets"})
        field.add_fleet(wanted)
        field.add_peers(wanted_peers)
        undo.pop_all()
    return field


def _in_turns(options: Options, field: Field, load: Load) -> dict[str, list[Run]]:
    """Return runs by contender; who fails once is out, and told as absent."""
    found: dict[str, list[Run]] = {name: [] for name in field.contenders}
    for contender in field.contenders.values():
        contender.lost.clear()
    for _, name in alternated(list(found), options.rounds):
        if name in field.absent:
            continue
        arguments = load.arguments(options.quick)
        try:
            found[name].append(
                field.contenders[name].run(field.exchange, options.traffic, **arguments)
            )
        except Failed as error:
            field.absent[name] = f"failed: {error}"
    return {name: runs for name, runs in found.items() if name not in field.absent}


def _write(options: Options, field: Field, table: str, column: str, found: dict, value) -> None:
    note = "" if has_journal() else "no journal yet"
    for name in [*OURS, *(program[0] for program in PROGRAMS)]:
        if name in found:
            values = [value(run) for run in found[name]]
            is_ours = name.startswith(names.OURS)
            options.figures.add(table, column, name, values, note if is_ours else "")
        elif name in field.absent:
            options.figures.add(table, column, name, (), field.absent[name])


def _cpu(options: Options, field: Field, column: str, load: Load) -> None:
    found = _in_turns(options, field, load)
    _write(options, field, names.CPU, column, found, lambda run: run.cpu_ns / 1000)
    _losses(options, field, column, names.LOST)


def _rates(options: Options, field: Field, column: str) -> None:
    found = _in_turns(options, field, BLAST)
    _write(options, field, names.RATE, column, found, lambda run: run.rate)
    _write(options, field, names.RATE_CPU, column, found, lambda run: run.cpu_ns / 1000)
    _losses(options, field, column, names.RATE_LOST)


def _losses(options: Options, field: Field, column: str, table: str) -> None:
    for name, contender in field.contenders.items():
        if contender.lost and name not in field.absent:
            options.figures.add(table, column, name, contender.lost)
