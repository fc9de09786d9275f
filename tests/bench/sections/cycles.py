"""Kill and restart, over and over: what supervisor, fork helper and /dev/shm gain by it."""

import os
import signal
from pathlib import Path

from fleet import Fleet, running_fleet

from bench import names
from bench.children import Exchange, wait_for
from bench.contenders import connection
from bench.options import Options
from bench.probes import memory_mib
from supervisor.leftovers import children
from supervisor.registry_view import RegistryView
from supervisor.restart_state import State

WORKERS = 5
CYCLES, QUICK_CYCLES = 1000, 60
WARM = 50  # before the first look: caches fill


def run(options: Options) -> None:
    """Kill one worker after the other, each as soon as the one before is replaced."""
    cycles = QUICK_CYCLES if options.quick else CYCLES
    tags = [f"c{number}" for number in range(WORKERS)]
    with Exchange() as exchange:
        toml = "".join(connection(exchange, tag, None) for tag in tags)
        with running_fleet(options.subfolder(), toml) as fleet:
            directory = next(fleet.shm_base.glob(f"feedwarden-*/{fleet.name}"))
            for number in range(WARM):
                _cycle(directory, tags[number % WORKERS])
            before = _taken(fleet, directory)
            for number in range(cycles):
                _cycle(directory, tags[number % WORKERS])
            after = _taken(fleet, directory)
    for column, value in after.items():
        note = f"n = {cycles}"
        gained = value - before[column]
        options.figures.add(names.CYCLES, column, names.OURS, [gained], note)


def _cycle(directory: Path, tag: str) -> None:
    with RegistryView.open(directory) as registry:

        def slot():
            return next((found for found in registry.slots() if found.name == tag), None)

        def runs():
            found = slot()
            return found is not None and found.state is State.RUNNING and found.pid

        pid = wait_for(runs, f"{tag} runs", 30)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: runs() not in (False, pid), f"{tag} is replaced", 30)


def _taken(fleet: Fleet, directory: Path) -> dict[str, float]:
    supervisor = fleet.process.pid
    (helper,) = (
        pid
        for pid in children(supervisor)
        if Path(f"/proc/{pid}/comm").read_text().strip() == "fw-zygote"
    )
    files = [path.stat() for path in directory.iterdir()]
    return {
        names.CYCLES_MEMORY: memory_mib(supervisor) + memory_mib(helper),
        names.CYCLES_DESCRIPTORS: sum(
            len(os.listdir(f"/proc/{pid}/fd")) for pid in (supervisor, helper)
        ),
        names.CYCLES_FILES: len(files),
        names.CYCLES_BYTES: sum(file.st_blocks for file in files) * 512 / 2**20,
    }
