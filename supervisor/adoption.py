"""Adoption: what an earlier supervisor of the fleet left, and which of its processes are ours.

A process is one of ours if it holds the segment of its connection for life and is the very one
that the segment's header names, by pid and start time. Where that cannot be seen yet (a fork has
no segment for its first moment), the table or the fork helper must name it, and it must look like
a worker of that name. Everything else is a stranger: it is not signalled, not even looked at again.
"""

import contextlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shm.errors import SegmentError
from shm.process import boot_id, start_ticks
from shm.segment_lock import holder, is_held
from shm.stats import stats_path
from supervisor.registry_view import RegistryView
from supervisor.slot import Former, Slot
from supervisor.zygote_link import Kept
from worker.process_name import process_name, worker_name

log = logging.getLogger("supervisor.adoption")

FORKED = "fw-zygote"  # the name of a fork that has not taken its own yet


@dataclass(frozen=True, slots=True)
class Estate:
    """
    What the fleet's table says of the time before us.

    ``former`` is empty after another boot of the machine, ``epoch`` the last supervisor's,
    ``runtime_dir`` where its workers serve, if that is known.
    """

    former: Mapping[str, Former]
    epoch: int
    runtime_dir: Path | None = None


def read_estate(shm_dir: Path) -> Estate:
    """Return what is left of an earlier supervisor's table; never raises for what it holds."""
    try:
        with RegistryView.open(shm_dir) as view:
            if view.boot_id != boot_id():
                log.warning("the fleet's table is of another boot of the machine: begun anew")
                return Estate({}, view.epoch)
            return Estate(view.former(), view.epoch, view.runtime_dir)
    except FileNotFoundError:
        return Estate({}, 0)
    except (SegmentError, OSError) as error:
        log.warning("%s; what it held is lost, living workers are known by their segments", error)
        return Estate({}, 0)


@dataclass(frozen=True, slots=True)
class Living:
    """A worker that outlived its supervisor; the pidfd is its finder's."""

    pid: int
    start_ticks: int
    incarnation: int
    pidfd: int


def find_living(shm_dir: Path, name: str, slot: Slot | None, kept: Kept | None) -> Living | None:
    """
    Return the living worker of a connection, if it has one.

    Args:
        shm_dir: The fleet's directory.
        name: The connection.
        slot: What the table says of it, if anything.
        kept: Its youngest living fork, as the fork helper says, if it does.

    """
    path = stats_path(shm_dir, name)
    if (held := holder(path)) is not None:
        return _opened(held.pid, held.start_ticks, held.incarnation)
    if kept is not None:  # its helper has not reaped it, so the number is still its own
        return _opened(kept.pid, start_ticks(kept.pid), kept.incarnation)
    if slot is None or not slot.pid or not (is_held(path) or _looks_like(slot.pid, name)):
        return None
    return _opened(slot.pid, slot.start_ticks, slot.incarnation)


def _opened(pid: int, ticks: int, incarnation: int) -> Living | None:
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, OverflowError, ValueError):
        return None
    # After pidfd_open, so that the number cannot have changed hands in between.
    with contextlib.suppress(OSError):
        if ticks and start_ticks(pid) == ticks:
            return Living(pid, ticks, incarnation, pidfd)
    os.close(pidfd)
    return None


def _looks_like(pid: int, name: str) -> bool:
    return process_name(pid) in (worker_name(name), FORKED)
