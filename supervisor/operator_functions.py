"""Operator functions: whether what a fleet.toml names as ``package.module:function`` can be loaded.

Tried as a worker does it, but in a process of its own: a module of the operator's may print, hang,
start threads, or end the process that imports it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

from supervisor.linux import signal_name
from worker.matcher import FunctionUnusable, load_function, load_matcher

PATIENCE_S = 10.0  # for all of a file; what takes longer is left to its worker's ready_timeout
WHY_MAX = 300  # of an error's text


def why_unusable(wanted: Iterable[tuple[str, bool]]) -> dict[tuple[str, bool], str]:
    """
    Return why functions cannot be used, by name and whether it is a matcher; not those that can.

    Whatever takes longer than ``PATIENCE_S`` counts as usable: that is no proof of a fault.
    """
    left = list(dict.fromkeys(wanted))
    deadline = time.monotonic() + PATIENCE_S
    found: dict[tuple[str, bool], str] = {}
    while left and (patience_s := deadline - time.monotonic()) > 0:
        errors, end = _tried(left, patience_s)
        found |= {one: why for one, why in zip(left, errors, strict=False) if why}
        left = left[len(errors) :]
        if left and end:
            found[left.pop(0)] = f"loading it ended the process: {end}"
    return found


def _tried(wanted: list[tuple[str, bool]], patience_s: float) -> tuple[list[str], str]:
    """Return what a process said of the first functions, and how it ended, "" if it did not."""
    command = [sys.executable, "-P", "-m", "supervisor.operator_functions"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(json.dumps(wanted).encode(), patience_s)
            end = _end(process.returncode)
        except subprocess.TimeoutExpired as error:
            said, end = error.stdout or b"", ""
            os.killpg(process.pid, signal.SIGKILL)  # not reaped yet, so it is nobody else's
    whole, _, _rest = said.rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines()], end


def _end(code: int) -> str:
    return f"code {code}" if code >= 0 else signal_name(-code)


def main() -> None:
    """Load what stdin names, say of each on stdout why it cannot be used, "" if it can."""
    told = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what modules print is nobody's answer
    for name, is_matcher in json.load(sys.stdin):
        os.write(told, json.dumps(_fault_of(name, is_matcher)).encode() + b"\n")
    os.killpg(0, signal.SIGKILL)  # with whatever threads and processes the modules have started


def _fault_of(name: str, is_matcher: bool) -> str:
    try:
        load_matcher(name) if is_matcher else load_function(name)
    except FunctionUnusable as error:
        return str(error)[:WHY_MAX]
    except BaseException as error:  # SystemExit: a program instead of a module
        return f"{name}: {type(error).__name__}: {error}"[:WHY_MAX]
    return ""


if __name__ == "__main__":
    main()
