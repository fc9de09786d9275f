"""Belongings: what a connection has in the fleet's two directories.

What stands at its paths and is not ours is refused before anything is made, and never removed.
"""

import contextlib
import socket
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import msgspec

from shm.errors import SegmentError
from shm.journal import journal_path
from shm.segment_lock import check_ours, is_held, is_locked
from shm.stats import stats_path
from supervisor import ownership
from supervisor.errors import RuntimeDirectoryRefused
from worker.endpoints import data_socket, spec_file, stack_file, tuning_file
from worker.spec import ConnectionSpec
from worker.tuning import read_tuning


@dataclass(frozen=True, slots=True)
class Belongings:
    """
    The files of the connection ``name``: segments and notes in ``shm_dir``, its endpoint and the
    stacks of its worker in ``runtime_dir``.
    """

    shm_dir: Path
    runtime_dir: Path
    name: str

    @property
    def has_worker(self) -> bool:
        """Whether a worker holds its segment."""
        return is_held(stats_path(self.shm_dir, self.name))

    def refuse_foreign(self, ours: Collection[int]) -> None:
        """
        Raise for anything that stands in the way and is not ours.

        Args:
            ours: Processes of this fleet's earlier life.

        Raises:
            RuntimeDirectoryRefused: If something does.

        """
        refuse_unless_ours(stats_path(self.shm_dir, self.name))
        refuse_unless_ours(journal_path(self.shm_dir, self.name))
        endpoint = data_socket(self.runtime_dir, self.name)
        ownership.check_socket(endpoint, socket.SOCK_STREAM, ours)
        ownership.check_stack(stack_file(self.runtime_dir, self.name))

    def remove_notes(self) -> None:
        """Remove what was left for a living worker, and what it wrote of its options."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            path = spec_file(self.shm_dir, self.name)
            msgspec.msgpack.decode(path.read_bytes(), type=ConnectionSpec)
            path.unlink()
        with contextlib.suppress(OSError, ValueError):
            path = tuning_file(self.shm_dir, self.name)
            if read_tuning(path) is not None:
                path.unlink()

    def remove_segments(self) -> None:
        """Remove the segments that nobody holds."""
        remove_segment(stats_path(self.shm_dir, self.name))
        remove_segment(journal_path(self.shm_dir, self.name))

    def remove_endpoint(self, ours: Collection[int] = ()) -> None:
        """Remove the endpoint, if nobody or only ``ours`` listens there, and the stacks."""
        ownership.remove_stack(stack_file(self.runtime_dir, self.name))
        endpoint = data_socket(self.runtime_dir, self.name)
        ownership.remove_socket(endpoint, socket.SOCK_STREAM, ours)


def refuse_unless_ours(segment: Path) -> None:
    """Raise ``RuntimeDirectoryRefused`` if something that is no segment of ours stands there."""
    try:
        check_ours(segment)
    except SegmentError as error:
        why = error.why.removesuffix("; move it away")
        raise RuntimeDirectoryRefused(segment, why, "move it away") from error


def remove_segment(path: Path, *, finished: bool = True) -> None:
    """Remove a segment that nobody holds. An unfinished one has no magic yet, so none is asked."""
    with contextlib.suppress(SegmentError, OSError):  # foreign: left alone
        if not is_locked(path, finished=finished):
            path.unlink()
