"""Process: the life of one worker's process, from the fork to its exit code.

What is done before there is a loop, and after: shared memory taken over, threads placed, a file for
the stacks of one that hangs. What it does meanwhile is the runner's (``worker/runner.py``).
"""

import asyncio
import faulthandler
import logging
import os
import resource
import sys
import time
from pathlib import Path
from typing import IO

import uvloop

from shm.errors import SegmentError, SegmentLocked, SegmentUnavailable
from shm.journal import Journal
from shm.layout import Word
from shm.process import boot_id
from shm.stats import StatsWriter
from worker import endpoints
from worker.exits import Exit
from worker.matcher import FunctionUnusable
from worker.memory import give_back_zeros, share_one_arena
from worker.placement import Placement
from worker.process_name import set_process_name, worker_name
from worker.runner import Runner
from worker.spec import Assignment

log = logging.getLogger("worker")


def prepare() -> None:
    """
    Do what all workers have in common, once, in the process that they are forked from.

    A worker that did it would have pages of its own for it, and take its time.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s %(message)s")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold secrets
    share_one_arena()
    boot_id()  # is kept


def main(assignment: Assignment, listener: int) -> int:
    """
    Be the worker of ``assignment`` until it ends; return the exit code.

    Called in a fresh fork of a process that did ``prepare``: single thread, no loop, no ZeroMQ
    context, signals at their defaults but for SIGPIPE, which is ignored.

    Args:
        assignment: What to do.
        listener: Descriptor of the listening socket of the data endpoint.

    """
    spec = assignment.spec
    placement = Placement(spec.process)
    placement.pin_loop()
    set_process_name(worker_name(spec.name))
    try:
        stats, journal = _take_over(assignment)
    except SegmentError as error:
        log.error("connection=%s cannot start: %s", spec.name, error)
        passing = isinstance(error, SegmentLocked | SegmentUnavailable)
        return Exit.TEMPORARY if passing else Exit.CONFIGURATION
    stacks = _stack_file(endpoints.stack_file(Path(assignment.runtime_dir), spec.name))
    if stacks is not None:
        # The supervisor aborts a hung worker: all stacks go here, then SIGABRT ends it.
        faulthandler.enable(file=stacks)
    try:
        return uvloop.run(_serve(assignment, stats, listener, placement, journal))
    finally:
        faulthandler.disable()
        if journal is not None:
            journal.close()
        stats.close()


def _take_over(assignment: Assignment) -> tuple[StatsWriter, Journal | None]:
    """
    Go on in shared memory where the predecessor stopped.

    Raises:
        SegmentError: If it lives, or the memory cannot be had.

    """
    directory, spec = Path(assignment.shm_dir), assignment.spec
    stats = StatsWriter.create(
        directory,
        spec.name,
        incarnation=assignment.incarnation,
        ring_slots=spec.publish.ring,
    )
    if not spec.publish.journal:
        return stats, None
    journal = Journal.take_over(
        directory, spec.name, size=spec.publish.journal, incarnation=assignment.incarnation
    )
    return stats, journal


def _stack_file(path: Path) -> IO[bytes] | None:
    """Return the file for stacks, ``None`` if it cannot be had: a worker goes on without."""
    try:
        wanted = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(path, wanted | os.O_NONBLOCK, 0o600), "ab", buffering=0)
    except OSError as error:
        log.warning("no file for stacks: %s", error)
        return None


async def _serve(
    assignment: Assignment,
    stats: StatsWriter,
    listener: int,
    placement: Placement,
    journal: Journal | None,
) -> Exit:
    # The loop turns. What comes before we serve may take its time: modules of the operator's.
    stats.words[Word.LIVENESS_NS] = time.monotonic_ns()
    give_back_zeros(asyncio.get_running_loop())
    try:
        runner = Runner(assignment, stats, listener, placement, journal)
    except FunctionUnusable as error:
        log.error("connection=%s cannot load %s", assignment.spec.name, error)
        return Exit.CONFIGURATION
    return await runner.run()
