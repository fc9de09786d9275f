"""Goals: the numbers to reach, each looked up in the figures of one run. Pure."""

from bench import names
from bench.figures import Figures, Goal

MANY_CONNECTIONS = "300"
HOT_LOADS = ("singles, 10,000/s", "bursts of 20, 10,000/s", "bursts of 100, 50,000/s")


def goals(figures: Figures) -> list[Goal]:
    """Return every goal whose section was run, and no other."""
    found = [*_hot(figures), *_throughput(figures), *_latency(figures), *_rest(figures)]
    run = {measure.table for measure in figures.measures}
    return [goal for table, goal in found if table in run]


def _hot(figures: Figures) -> list[tuple[str, Goal]]:
    paced = [
        (names.CPU, f"{scheme}, {load}") for scheme in names.SCHEMES.values() for load in HOT_LOADS
    ]
    unpaced = [(names.RATE_CPU, scheme) for scheme in names.SCHEMES.values()]
    measured = {(measure.table, measure.column) for measure in figures.measures}
    found = []
    for table, column in paced + unpaced:
        if (table, column) not in measured:
            continue
        load = column if table == names.CPU else f"{column}, no pause"
        floor = figures.ratio(table, column, names.OURS, names.FLOOR)
        less = figures.ratio(table, column, names.BY_HAND, names.OURS)
        quiet = figures.ratio(table, column, names.OURS_QUIET, names.FLOOR)
        found += [
            (table, Goal(f"CPU per message to the floor, {load}", floor, 1.4, "×")),
            (table, Goal(f"websockets + zmq.asyncio to ours, {load}", less, 3.2, "×", True)),
            (table, Goal(f"nobody subscribed to the floor, {load}", quiet, 0.6, "×")),
        ]
    return found


def _throughput(figures: Figures) -> list[tuple[str, Goal]]:
    found = []
    for scheme in names.SCHEMES.values():
        ratio = figures.ratio(names.RATE, scheme, names.OURS, names.FLOOR)
        lost = figures.median(names.RATE_LOST, scheme, names.OURS_SUBSCRIBER)
        found += [
            Goal(f"throughput to the floor's, {scheme}", ratio, 0.7, "×", True),
            Goal(f"of it lost after repair, {scheme}", lost, 0, "messages"),
        ]
    return [(names.RATE, goal) for goal in found]


def _latency(figures: Figures) -> list[tuple[str, Goal]]:
    column = "10,000/s, p50"
    return [
        (names.ONE_WAY, Goal(f"one-way {column}, {who}", reached, limit, "µs"))
        for who, reached, limit in (
            ("ZeroMQ", figures.median(names.ONE_WAY, column, names.OURS), 60),
            ("journal follower", figures.median(names.ONE_WAY, column, names.OURS_FOLLOWER), 10),
        )
    ]


def _rest(figures: Figures) -> list[tuple[str, Goal]]:
    rows = (
        (names.HEARTBEAT, names.PERIOD, "error of the mean ping period, worst", 0.1, "%"),
        (names.HEARTBEAT, names.DEATH_P50, "death after ping + timeout, p50", 2, "ms"),
        (names.HEARTBEAT, names.DEATH_P99, "death after ping + timeout, p99", 20, "ms"),
        (names.HEARTBEAT, names.RTT_OVER, "RTT p50 over a raw socket's, worst", 50, "µs"),
        (names.RESTART, "median", "SIGKILL to the replacement's first message", 25, "ms"),
        (names.FLEET, names.FIFTY_MEMORY, "memory per worker at 50", 7, "MiB"),
        (names.FLEET, names.FIFTY_UP, "50 workers, from run to all sessions", 1.5, "s"),
        (names.FLEET, names.FIFTY_IDLE, "supervisor's CPU per 10 s, 50 workers", 10, "ms"),
        (names.ADOPTION, "8 workers", "start of a supervisor to 8 workers adopted", 300, "ms"),
        (names.ADOPTION, "50 workers", "start of a supervisor to 50 workers adopted", 300, "ms"),
        (names.ADOPTION_LOST, "10,000/s", "lost over SIGKILLs of the supervisor", 0, "messages"),
        (names.LOSSES, names.STALLED, "lost to a subscriber stopped for 1 s", 0, "messages"),
        (names.LOSSES, names.BESIDE, "lost to the one beside it", 0, "messages"),
        (names.LOSSES, names.KILLED, "lost over SIGKILLs of the worker", 0, "messages"),
        (names.MEMORY_COST, names.SAMPLE, names.SAMPLE, 400, "ns"),
        (
            names.CYCLES,
            names.CYCLES_MEMORY,
            "memory gained by cycles of kill and restart",
            1,
            "MiB",
        ),
        (names.CYCLES, names.CYCLES_DESCRIPTORS, "descriptors gained by them", 0, ""),
        (names.CYCLES, names.CYCLES_FILES, "files in shared memory gained by them", 0, ""),
        (names.CYCLES, names.CYCLES_BYTES, "shared memory gained by them", 0, "MiB"),
    )
    found = [
        (table, Goal(what, figures.median(table, column, names.OURS), limit, unit))
        for table, column, what, limit, unit in rows
    ]
    many = figures.median(names.MANY, MANY_CONNECTIONS, names.MANY_WORST)
    what = f"error of the mean ping period, worst of {MANY_CONNECTIONS} connections"
    found.append((names.MANY, Goal(what, many, 0.1, "%")))
    bare = figures.median(names.MATCHER, names.NO_HEARTBEAT, names.OURS)
    armed = figures.median(names.MATCHER, names.ARMED, names.OURS)
    ratio = armed / bare if armed and bare else None
    return [*found, (names.MATCHER, Goal("armed matcher to no heartbeat", ratio, 1.02, "×"))]
