"""SIGKILL of the supervisor: how long until the next one has every worker, and what gets lost."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

from fleet import Fleet

from bench import names
from bench.children import Exchange, Failed, Listener, wait_for
from bench.contenders import connection
from bench.options import Options

WORKERS = (8, 50)
KILLS, QUICK_KILLS = 20, 5
SMALL_JOURNAL = "1MiB"
RATE, BURST = 10_000, 20
SECONDS_A_KILL, QUICK_SECONDS_A_KILL = 2, 1
ADOPTED = re.compile(r"adopted workers=(\d+) epoch=(\d+)")


def run(options: Options) -> None:
    """Measure fleets that are quiet, then one connection that is not."""
    kills = QUICK_KILLS if options.quick else KILLS
    for workers in WORKERS:
        with Exchange() as exchange:
            tags = [f"c{number}" for number in range(workers)]
            toml = "".join(connection(exchange, tag, None, journal=SMALL_JOURNAL) for tag in tags)
            fleet = Fleet(options.subfolder(), toml)
            try:
                fleet.start()
                fleet.wait_up(timeout_s=60)
                found, note = [_succeed(fleet, workers) for _ in range(kills)], f"n = {kills}"
            except (AssertionError, Failed) as error:
                found, note = [], str(error)
            finally:
                fleet.kill_everything()
            options.figures.add(names.ADOPTION, f"{workers} workers", names.OURS, found, note)
    _under_load(options, kills)


def _succeed(fleet: Fleet, workers: int) -> float:
    """Kill the supervisor and start another; return milliseconds from that to the last adoption."""
    fleet.process.kill()
    fleet.process.wait()
    before = len(ADOPTED.findall(fleet.said()))
    began_s = time.monotonic()
    process = fleet.launch()

    def adopted() -> float:
        at_s = time.monotonic()
        return at_s if len(ADOPTED.findall(fleet.said())) > before else 0.0

    ended_s = wait_for(lambda: adopted() or process.poll() is not None, "adoption", 20)
    if ended_s is True:
        raise Failed(f"the supervisor ended: {fleet.said()[-500:]}")
    count = int(ADOPTED.findall(fleet.said())[-1][0])
    if count != workers:
        raise Failed(f"{count} of {workers} workers were adopted")
    return (ended_s - began_s) * 1000


def _under_load(options: Options, kills: int) -> None:
    """One connection at full rate; the subscriber is a process of its own."""
    count = RATE * (QUICK_SECONDS_A_KILL if options.quick else SECONDS_A_KILL)
    with Exchange() as exchange:
        fleet = Fleet(options.subfolder(), connection(exchange, "a", None))

        def send() -> None:
            # The exchange answers a ping between two runs: one long run would be a timeout.
            for _ in range(kills):
                exchange.go(["a"], options.traffic, rate=RATE, burst=BURST, count=count)

        try:
            fleet.start()
            fleet.wait_up(timeout_s=60)
            row = fleet.rows()["a"]
            shm = {"FEEDWARDEN_SHM": str(fleet.shm_base)}
            with (
                Listener("library", fleet.name, "a", environment=shm) as listener,
                ThreadPoolExecutor(1) as threads,
            ):
                time.sleep(0.5)  # it has connected
                sending, done = threads.submit(send), 0
                while not sending.done() and done < kills:
                    _succeed(fleet, 1)
                    done += 1
                    time.sleep(0.1)
                sending.result()
                got = listener.wait_count(kills * count)
                extra = listener.order("count")
            after = fleet.rows()["a"]
        finally:
            fleet.kill_everything()
    lost = kills * count - got
    whole = (after["pid"], after["reconnects"]) == (row["pid"], row["reconnects"])
    note = (
        f"{done} kills, {kills * count:,} messages, {extra.get('repaired', 0)} repaired, "
        f"{'the same process and session' if whole else 'ANOTHER PROCESS OR SESSION'}"
    )
    options.figures.add(names.ADOPTION_LOST, f"{RATE:,}/s", names.OURS, [lost], note)
