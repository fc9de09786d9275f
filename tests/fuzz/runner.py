"""Runs a target in a process of its own, so that a crash and an endless loop can be told."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

STUCK_S = 30.0  # without the end of a case; each takes milliseconds
TESTS = Path(__file__).parent.parent


@dataclass(frozen=True)
class Report:
    """What became of a run. ``fault`` is empty if the contract held."""

    target: str
    seed: int
    cases: int
    outcomes: dict
    fault: str


def rng_of(seed, number):
    """The same case every time."""
    return random.Random(f"{seed}:{number}")


def run(target, seed, *, cases=None, seconds=None, first=0):
    """Run a target for so many cases, or so long; return its report."""
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir="/dev/shm") as folder:
        arguments = [target, seed, first, cases or 0, seconds or 0, folder]
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fuzz.runner", *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": _path(), "FEEDWARDEN_SHM": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        progress = Path(folder, "progress")
        told = _watched(process, progress)
        number = int(progress.read_text() or 0) if progress.exists() else first
    return _report(target, seed, number, told, process.returncode)


def _path():
    return os.pathsep.join(map(str, (TESTS, TESTS / "support", TESTS.parent)))


def _watched(process, progress):
    """Wait for the end, or for a case that takes too long; return what it said."""
    with process:
        seen, since = "", time.monotonic()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=0.5)[0]
            now = progress.read_text() if progress.exists() else ""
            if now != seen:
                seen, since = now, time.monotonic()
            elif seen and time.monotonic() - since > STUCK_S:
                process.send_signal(signal.SIGABRT)  # faulthandler tells where
                return f"stuck for {STUCK_S:g} s\n{process.communicate()[0]}"


def _report(target, seed, number, told, returncode):
    last = told.splitlines()[-1] if told else ""
    if returncode == 0:
        done = json.loads(last)
        return Report(target, seed, done["cases"], done["outcomes"], "")
    how = f"case {number}: "
    if returncode < 0:
        how += f"died of {signal.Signals(-returncode).name}\n"
    return Report(target, seed, number, {}, how + told)


# The process -----------------------------------------------------------------------------------


def main(name, seed, first, cases, seconds, folder):
    """Run cases; print a JSON line, or a traceback and exit 1."""
    import faulthandler

    from fuzz.targets import target_of

    faulthandler.enable()
    seed, number, cases, seconds = int(seed), int(first), int(cases), float(seconds)
    end = number + cases if cases else sys.maxsize
    until = time.monotonic() + seconds if seconds else float("inf")
    outcomes = Counter()
    progress = os.open(Path(folder, "progress"), os.O_WRONLY | os.O_CREAT)
    with target_of(name)(Path(folder)) as target:
        begun = number
        while number < end and time.monotonic() < until:
            os.pwrite(progress, b"%d" % number, 0)
            try:
                outcomes[target.run(rng_of(seed, number))] += 1
            except Exception:
                traceback.print_exc()
                sys.exit(1)
            number += 1
    print()
    print(json.dumps({"cases": number - begun, "outcomes": outcomes}))


if __name__ == "__main__":
    main(*sys.argv[1:])
