"""Many connections in one fleet: whether each of them pings by its timetable.

The server (bench/heartbeat_process.py) stamps the pings as they come; CLOCK_MONOTONIC is that of
the workers. A machine that cannot keep up shows it here first.
"""

import resource
import time
from collections.abc import Sequence
from pathlib import Path

from fleet import running_fleet

from bench import names
from bench.children import Failed, wait_for
from bench.figures import Figures
from bench.options import Options
from bench.probes import cpu_ns
from bench.sections.heartbeat import Server
from shm.layout import Counter
from shm.view import StatsView

CONNECTIONS = (1, 50, 100, 200, 300, 500, 1000)
QUICK_CONNECTIONS = (1, 50)
INTERVAL_S = 0.5
PINGS, QUICK_PINGS = 100, 20
WORKER_MIB = 16  # with its segments, more than enough
CONNECTION = """
[[connection]]
name = "{name}"
url = "{url}"
heartbeat = {{ interval = {interval}, timeout = {interval} }}
publish = {{ journal = {{ size = "64KiB" }}, stats = {{ ring = 1024 }} }}
"""


def run(options: Options) -> None:
    """Measure one fleet after the other, each with a server of its own."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a segment of each is mapped here
    for count in QUICK_CONNECTIONS if options.quick else CONNECTIONS:
        if count * WORKER_MIB > _free_mib():
            note = "too little memory"
            options.figures.add(names.MANY, str(count), names.MANY_WORST, (), note)
            continue
        with Server() as server:
            try:
                _measure(options, server, count)
            except (AssertionError, Failed) as error:  # more than this machine carries
                options.figures.add(names.MANY, str(count), names.MANY_WORST, (), str(error))


def _measure(options: Options, server: Server, count: int) -> None:
    pings = QUICK_PINGS if options.quick else PINGS
    tags = [f"c{number}" for number in range(count)]
    toml = "".join(
        CONNECTION.format(name=tag, url=server.url(f"0-{tag}-many"), interval=INTERVAL_S)
        for tag in tags
    )
    with running_fleet(options.subfolder(), toml) as fleet:
        directory = next(fleet.shm_base.glob(f"feedwarden-*/{fleet.name}"))
        wait_for(lambda: len(list(directory.glob("*.stats"))) == count, "a segment each", 120)
        views = [StatsView.open(directory, tag) for tag in tags]
        _wait_pings(views, 1, 120)
        pids = [view.pid for view in views]
        cpu, began_s = cpu_ns(*pids), time.monotonic()
        _wait_pings(views, pings + 1, pings * INTERVAL_S * 4 + 60)
        ended_s = time.monotonic()
        share = (cpu_ns(*pids) - cpu) / 1e7 / (ended_s - began_s) / count
        for view in views:
            view.close()
    # Not those sent while the fleet ends: hundreds of ends at once are another matter.
    stamps = [
        [at_ns for at_ns in life["pings_ns"] if at_ns <= ended_s * 1e9][-pings:]
        for life in server.lives("many", count, since_ns=int(began_s * 1e9))
    ]
    if lost := sum(len(each) < pings for each in stamps):
        raise Failed(f"{lost} of {count} sessions ended while they were measured")
    _take_down(options.figures, str(count), stamps, share)


def _wait_pings(views: Sequence[StatsView], count: int, timeout_s: float) -> None:
    """Wait until each has sent so many; asked seldom, for it takes from who is measured."""
    deadline_s = time.monotonic() + timeout_s
    while any(view.counters[Counter.PINGS] < count for view in views):
        if time.monotonic() > deadline_s:
            raise Failed(f"not within {timeout_s:g} s: {count} pings of {len(views)} connections")
        time.sleep(0.25)


def _take_down(
    figures: Figures, column: str, stamps: Sequence[Sequence[int]], share: float
) -> None:
    errors, latest = [], 0.0
    for each in stamps:
        periods = len(each) - 1
        errors.append(abs((each[-1] - each[0]) / periods / 1e9 / INTERVAL_S - 1) * 100)
        ideal = [at - number * INTERVAL_S * 1e9 for number, at in enumerate(each)]
        latest = max(latest, (max(ideal) - min(ideal)) / 1e6)
    errors.sort()
    rows = {
        names.MANY_WORST: errors[-1],
        names.MANY_MEDIAN: errors[len(errors) // 2],
        names.MANY_LATEST: latest,
        names.MANY_SHARE: share,
    }
    for row, value in rows.items():
        figures.add(names.MANY, column, row, [value])


def _free_mib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0
