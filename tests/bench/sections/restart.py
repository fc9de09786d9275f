"""SIGKILL of a worker to the first message of its replacement at a subscriber that stays."""

import os
import signal
import time

from bench import names, supervisors
from bench.children import Exchange, Failed, Listener, wait_for
from bench.figures import percentile
from bench.options import Options

RATE = 1_000
KILLS = {names.OURS: 20, names.SUPERVISORD: 5, names.CIRCUS: 5, names.CIRCUS_EAGER: 5}
QUICK_KILLS = {names.OURS: 5, names.SUPERVISORD: 2, names.CIRCUS: 1, names.CIRCUS_EAGER: 2}
APART_S = 0.3


def run(options: Options) -> None:
    """Measure each supervisor; all subscribers reconnect after 1 ms."""
    with Exchange() as exchange:
        exchange.order("stream", rate=RATE)
        for name, kills in (QUICK_KILLS if options.quick else KILLS).items():
            try:
                found = _kill(name, options, exchange, kills)
            except Failed as error:
                options.figures.add(names.RESTART, "median", name, (), str(error))
                continue
            note = f"n = {len(found)}"
            options.figures.add(names.RESTART, "median", name, found, note)
            options.figures.add(names.RESTART, "p95", name, [percentile(found, 95)])


def _kill(name: str, options: Options, exchange: Exchange, kills: int) -> list[float]:
    kept = supervisors.start(name, options, exchange, ["r"])
    try:
        supervisors.wait_connected(exchange, ["r"], 20)
        with Listener("sub", kept.endpoints["r"], kept.prefix.format(tag="r")) as listener:
            return [_once(name, kept, listener) for _ in range(kills)]
    finally:
        kept.stop()
        wait_for(lambda: not exchange.sessions(), "the sessions end", 10)


def _once(name: str, kept: supervisors.Kept, listener: Listener) -> float:
    """Return milliseconds."""
    before = wait_for(lambda: listener.order("sources"), f"data of {name}", 20)
    time.sleep(APART_S)
    (pid,) = kept.pids()
    killed_ns = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    new = wait_for(lambda: listener.order("sources").keys() - before.keys(), "its replacement", 30)
    (first_ns,) = (listener.order("sources")[key] for key in new)
    return (first_ns - killed_ns) / 1e6
