"""Fifty workers: how long until all are connected, what each takes, what the supervisor takes."""

import statistics
import time

from bench import names, supervisors
from bench.children import Exchange, Failed, wait_for
from bench.figures import alternated
from bench.options import Options
from bench.probes import cpu_ns, memory_mib

WORKERS = 50
RATE = 20  # messages a second of each session
WARM_S = 2.0
WHO = (names.OURS, names.SUPERVISORD, names.CIRCUS)


def run(options: Options) -> None:
    """Measure ours, supervisord and circus in turns."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WHO}
    absent: dict[str, str] = {}
    for _, name in alternated(WHO, 1 if options.quick else 3):
        if name in absent:
            continue
        try:
            with Exchange() as exchange:
                found[name].append(_once(name, options, exchange))
        except Failed as error:
            absent[name] = str(error)
    for column in (names.FIFTY_UP, names.FIFTY_MEMORY, names.FIFTY_IDLE):
        for name in WHO:
            values = [] if name in absent else [each[column] for each in found[name]]
            options.figures.add(names.FLEET, column, name, values, absent.get(name, ""))


def _once(name: str, options: Options, exchange: Exchange) -> dict[str, float]:
    tags = [f"c{number}" for number in range(WORKERS)]
    exchange.order("stream", rate=RATE)
    began_s = time.monotonic()
    kept = supervisors.start(name, options, exchange, tags)
    try:
        supervisors.wait_connected(exchange, tags, 60)
        up_s = time.monotonic() - began_s
        time.sleep(WARM_S)
        memory = [memory_mib(pid) for pid in kept.pids()]
        if len(memory) != WORKERS:
            raise Failed(f"{len(memory)} of {WORKERS} workers run")
        idle_s = 5 if options.quick else 10  # circus looks every 5 s
        before_ns = cpu_ns(kept.pid)
        time.sleep(idle_s)
        idle_ms = (cpu_ns(kept.pid) - before_ns) / 1e6 * 10 / idle_s
    finally:
        kept.stop()
        exchange.order("stream", rate=0)
        wait_for(lambda: not exchange.sessions(), "the sessions end", 10)
    return {
        names.FIFTY_UP: up_s,
        names.FIFTY_MEMORY: statistics.median(memory),
        names.FIFTY_IDLE: idle_ms,
    }
