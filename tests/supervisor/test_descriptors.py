"""Standard streams: none is missing, neither here nor in a child."""

import subprocess
import sys

import pytest

FILLED = """
import os, subprocess, sys
from supervisor.descriptors import fill_standard_streams
fill_standard_streams()
for stream in (sys.stdout, sys.stderr):
    print("is taken", file=stream, flush=True)
null = os.stat(os.devnull).st_rdev
look = f"import os; assert all(os.fstat(n).st_rdev == {null} for n in {sys.argv[1]})"
sys.exit(subprocess.run([sys.executable, "-S", "-c", look]).returncode)
"""


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_closed_standard_stream_leads_nowhere_and_is_inherited(closed):
    closing = " ".join(f"{number}>&-" for number in closed)
    program = [sys.executable, "-c", FILLED, str(closed)]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closing}', "sh", *program],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
