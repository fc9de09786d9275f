"""What is lost for good, behind the repair: to a subscriber that stood, and over killed workers."""

import os
import signal
import threading
import time
from pathlib import Path

from fleet import Fleet, running_fleet

from bench import names
from bench.children import Exchange, Failed, Listener, wait_for
from bench.contenders import connection
from bench.options import Options
from shm.view import StatsView

STALL_RATE, STALL_BURST, STALL_S = 50_000, 50, 1.0
BEFORE_S, RUN_S = 1, 4  # of a run, in which the stall is
KILL_RATE = 10_000
KILLS, QUICK_KILLS = 100, 10
APART_S = 0.1  # a thousand messages
JOURNAL = "64MiB"


def run(options: Options) -> None:
    """Measure both; each has a fleet of its own."""
    _stall(options)
    _kills(options)


def _stall(options: Options) -> None:
    """Stop one of two subscribers for a second at full rate."""
    count = STALL_RATE * RUN_S
    rounds = 1 if options.quick else 5
    lost: dict[str, list[int]] = {names.STALLED: [], names.BESIDE: []}
    repaired = 0
    with (
        Exchange() as exchange,
        running_fleet(options.subfolder(), _toml(exchange)) as fleet,
        _subscriber(fleet) as stalled,
        _subscriber(fleet) as beside,
    ):
        fleet.wait_up(timeout_s=60)
        time.sleep(0.5)  # both have connected
        for _ in range(rounds):
            for listener in (stalled, beside):
                listener.order("mark", timed=False)
            stop = threading.Timer(BEFORE_S, _stop_for_a_while, [stalled.pid])
            stop.start()
            exchange.go(["a"], options.traffic, rate=STALL_RATE, burst=STALL_BURST, count=count)
            stop.join()
            for name, listener in ((names.STALLED, stalled), (names.BESIDE, beside)):
                lost[name].append(count - listener.wait_count(count))
            repaired += stalled.order("count").get("repaired", 0)
    note = f"n = {rounds}, {count * rounds:,} messages"
    options.figures.add(
        names.LOSSES,
        names.STALLED,
        names.OURS,
        lost[names.STALLED],
        f"{note}, {repaired:,} repaired",
    )
    options.figures.add(names.LOSSES, names.BESIDE, names.OURS, lost[names.BESIDE], note)


def _stop_for_a_while(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    time.sleep(STALL_S)
    os.kill(pid, signal.SIGCONT)


def _kills(options: Options) -> None:
    """Kill the worker over and over; of each session no message may be missing before its last."""
    kills = QUICK_KILLS if options.quick else KILLS
    with (
        Exchange() as exchange,
        running_fleet(options.subfolder(), _toml(exchange)) as fleet,
        _subscriber(fleet) as listener,
    ):
        fleet.wait_up(timeout_s=60)
        time.sleep(0.5)  # it has connected
        exchange.order("stream", rate=KILL_RATE)
        directory = next(fleet.shm_base.glob(f"feedwarden-*/{fleet.name}"))
        for _ in range(kills):
            time.sleep(APART_S)
            pid = _worker(directory)
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda former=pid: _worker(directory) not in (0, former), "a successor", 30)
            wait_for(exchange.sessions, "its session", 30)
        time.sleep(APART_S)
        exchange.order("stream", rate=0)
        time.sleep(0.5)  # the last ones arrive
        told = listener.order("count")
    if told.get("sessions", 0) < kills:
        raise Failed(f"{told.get('sessions', 0)} sessions after {kills} kills")
    note = f"n = {kills}, {told['count']:,} messages, {told.get('repaired', 0):,} repaired"
    lost = [told.get("lost", 0) + told.get("missing", 0)]
    options.figures.add(names.LOSSES, names.KILLED, names.OURS, lost, note)


def _toml(exchange: Exchange) -> str:
    return connection(exchange, "a", None, journal=JOURNAL)


def _subscriber(fleet: Fleet) -> Listener:
    environment = {"FEEDWARDEN_SHM": str(fleet.shm_base)}
    return Listener("library", fleet.name, "a", environment=environment)


def _worker(directory: Path) -> int:
    """Return the process that serves, 0 while there is none."""
    try:
        with StatsView.open(directory, "a") as view:
            return view.pid
    except FileNotFoundError:
        return 0
