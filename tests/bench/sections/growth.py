"""How the cost grows: with the size of messages, with connections, with subscribers."""

import statistics
import time

from fleet import Fleet

from bench import names
from bench.children import Exchange, Failed
from bench.contenders import SETTLE_S, Contender, Field, connection, ours
from bench.figures import alternated
from bench.options import Options
from bench.probes import cpu_ns, memory_mib

SIZES = (100, 370, 1024, 4096, 16384, 65536)
QUICK_SIZES = (100, 1024, 65536)
SUBSCRIBERS, QUICK_SUBSCRIBERS = (0, 1, 2, 4, 8), (0, 1, 8)
CONNECTIONS, QUICK_CONNECTIONS = (1, 10, 50, 100, 200), (1, 20)
WHO = (names.OURS, names.FLOOR, names.BY_HAND)
PREFIX = {names.OURS: "data.a", names.FLOOR: "floor", names.BY_HAND: "hand"}
# Bursts, as where it matters; few enough for 64 KiB.
LOAD = {"rate": 5_000, "burst": 20, "count": 10_000}
QUICK_COUNT = 2_000
FLEET_RATE, FLEET_SECONDS, QUICK_FLEET_SECONDS = 10_000, 5, 1
SMALL_JOURNAL = "1MiB"


def run(options: Options) -> None:
    """Measure by size and by subscribers, everybody in turns; then by connections."""
    with Field(options) as field:
        field.add_fleet({names.OURS: ("a", {})})
        field.add_peers(WHO)
        for size in QUICK_SIZES if options.quick else SIZES:
            _in_turns(options, field, names.BY_SIZE, f"{size:,} B", {"size": size})
        for count in QUICK_SUBSCRIBERS if options.quick else SUBSCRIBERS:
            for name, contender in field.contenders.items():
                _subscribe(field, name, contender, count)
            _in_turns(options, field, names.BY_SUBSCRIBERS, str(count), options.traffic)
    for count in QUICK_CONNECTIONS if options.quick else CONNECTIONS:
        _connections(options, count)


def _subscribe(field: Field, name: str, contender: Contender, count: int) -> None:
    if count:
        field.listen(contender, PREFIX[name], count)
    else:
        field.deafen(contender)


def _in_turns(options: Options, field: Field, table: str, column: str, traffic: dict) -> None:
    load = LOAD | ({"count": QUICK_COUNT} if options.quick else {})
    found: dict[str, list[float]] = {name: [] for name in field.contenders}
    for _, name in alternated(list(found), options.rounds):
        if name in field.absent:
            continue
        try:
            turn = field.contenders[name].run(field.exchange, traffic, **load)
        except Failed as error:
            field.absent[name] = f"failed: {error}"
            continue
        found[name].append(turn.cpu_ns / 1000)
    for name in WHO:
        note = field.absent.get(name, "")
        options.figures.add(table, column, name, () if note else found[name], note)


def _connections(options: Options, count: int) -> None:
    """The same messages spread over more and more workers of one fleet, nobody subscribed."""
    tags = [f"c{number}" for number in range(count)]
    with Exchange() as exchange:
        toml = "".join(connection(exchange, tag, None, journal=SMALL_JOURNAL) for tag in tags)
        fleet = Fleet(options.subfolder(), toml)
        try:
            fleet.start()
            fleet.wait_up(timeout_s=60)
            time.sleep(1)
            _spread(options, exchange, fleet, tags)
        finally:
            fleet.kill_everything()


def _spread(options: Options, exchange: Exchange, fleet: Fleet, tags: list[str]) -> None:
    pids = [ours(names.OURS, tag, fleet).pid for tag in tags]
    seconds = QUICK_FLEET_SECONDS if options.quick else FLEET_SECONDS
    load = {"rate": FLEET_RATE, "burst": 1, "count": FLEET_RATE * seconds}
    costs, before_ns = [], cpu_ns(*pids)
    time.sleep(seconds)
    idle_percent = (cpu_ns(*pids) - before_ns) / 1e7 / seconds / len(tags)
    for _ in range(options.rounds):
        before_ns = cpu_ns(*pids)
        told = exchange.go(tags, options.traffic, **load)
        time.sleep(SETTLE_S)
        costs.append((cpu_ns(*pids) - before_ns) / told["sent"] / 1000)
    memory = statistics.median(memory_mib(pid) for pid in pids)
    column = str(len(tags))
    options.figures.add(names.BY_CONNECTIONS, column, "CPU per message, µs", costs)
    idle = "an idle worker's share of a core, %"
    options.figures.add(names.BY_CONNECTIONS, column, idle, [idle_percent])
    options.figures.add(names.BY_CONNECTIONS, column, "memory per worker, MiB", [memory])
