"""Zygote's child: what is between fork(2) and a worker, and when there must be no fork.

A child has its parent's descriptors, signals and session, and keeps none of them but what it is
given.
"""

import contextlib
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import msgspec

from worker import process
from worker.exits import Exit
from worker.spec import Assignment

# Made here and not in each worker, which would learn the types anew, in pages of its own.
_assignments = msgspec.msgpack.Decoder(Assignment)


def refuse_threads() -> None:
    """Raise ``RuntimeError`` if this process has a second thread, which no fork takes along."""
    threads = os.listdir("/proc/self/task")
    if len(threads) != 1:
        names = _thread_names(threads)
        raise RuntimeError(f"refused to fork with {len(threads)} threads: {names}")


def _thread_names(threads: list[str]) -> str:
    names = []
    for thread in threads:
        with contextlib.suppress(OSError):
            names.append(Path(f"/proc/self/task/{thread}/comm").read_text().strip())
    return ", ".join(names)


def become_worker(listener: socket.socket, assignment: int) -> None:
    """Turn the forked child into a worker. Never returns: ``os._exit`` runs no parent's cleanup."""
    code = int(Exit.BUG)
    try:
        os.setsid()
        # SIGPIPE stays ignored: a peer that hangs up must be an error, not a death.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        keep = {0, 1, 2, listener.fileno(), assignment}
        for entry in os.listdir("/proc/self/fd"):
            if int(entry) not in keep:
                with contextlib.suppress(OSError):
                    os.close(int(entry))
        size = os.fstat(assignment).st_size
        body = os.pread(assignment, size, 0)
        os.close(assignment)
        code = process.main(_assignments.decode(body), listener.fileno())
    except BaseException:
        with contextlib.suppress(BaseException):  # stderr may be broken, or gone
            traceback.print_exc()
    finally:
        try:
            with contextlib.suppress(BaseException):
                sys.stderr.flush()
        finally:
            os._exit(code)
