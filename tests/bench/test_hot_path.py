"""The command that measures the hot path alone reaches into a worker: it must keep up with it."""

import subprocess
import sys
from pathlib import Path


def test_the_cost_of_a_message_is_told_of_each_contender():
    program = Path(__file__).with_name("hot_path.py")
    done = subprocess.run(
        [sys.executable, program, "200"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line.split("  ")[1] for line in done.stdout.splitlines()[1:]] == [
        "by hand: picows + zmq",
        "feedwarden, nobody subscribed",
        "feedwarden, sending",
    ]
