"""A short run of ``make chaos``, always the same; the long one is for who changes something."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

TESTS = Path(__file__).parent.parent
SHORT = ("--seconds", "8", "--workers", "5", "--rate", "100", "--seed", "7")


def test_random_faults_on_a_fleet_under_load_lose_nothing_and_leave_nothing():
    path = os.pathsep.join(map(str, (TESTS, TESTS / "support", TESTS.parent)))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "chaos", *SHORT],
        check=False,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=380,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines()[1:] if not line.startswith("untold: ")]
    figures = dict(line.rsplit(maxsplit=1) for line in lines)
    figures = {name.strip(): int(number.replace(",", "")) for name, number in figures.items()}
    assert figures["faults in 8 s"] >= 3
    assert figures["messages received by workers"] == figures["delivered"] > 1000
