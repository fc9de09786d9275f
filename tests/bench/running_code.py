"""Writes worker/running.txt: which functions a worker runs, tried out with one that has a session.

    make running

For five seconds, with messages and pings, from the fork on, and nothing of its end.
"""

import gc
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FunctionType

import zmq

from bench.children import Exchange
from shm.process import start_ticks
from supervisor.listener import listen
from worker import process
from worker.running import NAMES
from worker.spec import Assignment, ConnectionSpec

SECONDS = 5.0


def main() -> None:
    """Run a worker in a child, and write down what it called."""
    with tempfile.TemporaryDirectory() as name, Exchange() as exchange:
        folder = Path(name)
        (folder / "data").mkdir()
        assignment = Assignment(
            fleet="t",
            incarnation=1,
            runtime_dir=str(folder),
            shm_dir=str(folder),
            supervisor_pid=os.getpid(),
            supervisor_start_ticks=start_ticks(os.getpid()),
            spec=ConnectionSpec(name="a", url=exchange.url("a")),
        )
        listener = listen(folder / "data" / "a.sock")
        process.prepare()
        worker = _fork(assignment, listener.fileno())
        subscriber = zmq.Context.instance().socket(zmq.SUB)
        subscriber.subscribe(b"data.a\0")
        subscriber.connect(f"ipc://{folder}/data/a.sock")
        exchange.order("stream", rate=20)
        time.sleep(SECONDS + 0.5)
        os.kill(worker, signal.SIGTERM)
        os.waitpid(worker, 0)
        subscriber.close(0)
    print(f"{NAMES}: {len(NAMES.read_text().splitlines())} functions")


def _fork(assignment: Assignment, listener: int) -> int:
    """Fork the worker, which writes the list when it ends."""
    called, end_s = set(), time.monotonic() + SECONDS

    def note(frame, _event, _argument):
        if time.monotonic() < end_s:
            called.add(frame.f_code)

    sys.setprofile(note)
    pid = os.fork()
    if pid:
        sys.setprofile(None)
        return pid
    try:
        process.main(assignment, listener)
        sys.setprofile(None)
        NAMES.write_text("".join(f"{name}\n" for name in sorted(_names(called))))
    finally:
        os._exit(0)


def _names(called):
    gc.unfreeze()
    functions = (found for found in gc.get_objects() if type(found) is FunctionType)
    names = {f"{it.__module__}.{it.__qualname__}" for it in functions if it.__code__ in called}
    # What is made by a call is not there yet when code is moved.
    return {name for name in names if "<" not in name and not name.startswith("__main__.")}


if __name__ == "__main__":
    main()
