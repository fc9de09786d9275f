"""A login function that does what a file tells it to: faults inside a worker, on its loop.

The worker of connection NAME reads ``$FAULTS_FOLDER/NAME`` before each dial. The file stays, so the
next incarnation does the same, unless its name is NAME.once.
"""

import os
import re
import subprocess
import time
from pathlib import Path

LOGIN = 'login = "injected:fault"\n'


def fault(context):
    """Do what is ordered; else dial as configured."""
    folder = Path(os.environ["FAULTS_FOLDER"])
    once, always = folder / f"{context.connection}.once", folder / context.connection
    order = always.read_text() if always.exists() else ""
    if once.exists():
        order = once.read_text()
        once.unlink()
    verb, _, argument = order.partition(" ")
    match verb:
        case "exit":
            os._exit(int(argument))
        case "sleep":
            time.sleep(float(argument))  # the loop stands, other threads go on
        case "spin":
            re.match(r"(a+)+$", "a" * 60 + "b")  # for ever in C, and the GIL is held
        case "spawn":
            subprocess.Popen(["sleep", argument])
        case "allocate":
            hoard.append(bytearray(int(argument) << 20))


hoard = []
