"""Premises: the two directories of a running fleet, who may use them, and leaving them as found.

``shm_dir`` is named by the fleet alone and ``runtime_dir`` by the configuration, so both carry a
lock: one against a second ``run`` of the fleet, one against another fleet told to use the same
runtime directory. Everything below is ours only while both are held, and even then only what is
known to be: what stands in the way and is not ours is refused before anything is made.
"""

import contextlib
import os
import re
import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from shm.directory import fleet_directory
from shm.errors import SegmentError
from shm.journal import SUFFIX as JOURNAL_SUFFIX
from shm.process import start_ticks
from shm.segment_lock import is_held
from shm.stats import SUFFIX as STATS_SUFFIX
from supervisor import checked, ownership
from supervisor.belongings import Belongings, refuse_unless_ours, remove_segment
from supervisor.errors import RuntimeDirectoryRefused
from supervisor.fleet import Fleet
from supervisor.lock import locked
from worker.endpoints import (
    CONTROL,
    DATA,
    EVENTS,
    WAKE,
    ZYGOTE,
    data_socket,
    table_file,
)
from worker.spec import ConnectionSpec

KINDS = {
    EVENTS: socket.SOCK_STREAM,
    CONTROL: socket.SOCK_STREAM,
    WAKE: socket.SOCK_DGRAM,
    ZYGOTE: socket.SOCK_SEQPACKET,
}
UNFINISHED = re.compile(r"\.[^/]+\.[0-9]+\.tmp")  # shm.segment.create, before the rename
HELPERS_MAX = 64
EPOCH_MAX = 1 << 31  # the header of a message has 32 bits for it


class Premises:
    """
    The locked directories of a fleet; a context manager that cleans up when the fleet has ended.

    Args:
        fleet: Gives the name and the runtime directory.

    Attributes:
        kept: Whether everything stays as it is at the end, for the next supervisor.

    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet.name
        self.runtime_dir = fleet.runtime_dir
        self.shm_dir = fleet_directory(fleet.name)
        self._names = [connection.name for connection in fleet.connections]
        self._journaled = {c.name for c in fleet.connections if c.publish.journal}
        self._stack = contextlib.ExitStack()
        self._helpers: list[tuple[int, int]] = []
        self._former_helpers: list[tuple[int, int]] = []
        self.kept = False

    def __enter__(self) -> "Premises":
        """
        Create the directories where missing, lock them, sweep what an earlier life left.

        Raises:
            AlreadyRunning: If another process holds a lock; the text names it.
            RuntimeDirectoryRefused: If a directory or a file in it is not ours to use.

        """
        try:
            self._open()
        except BaseException as error:
            self._stack.close()
            if isinstance(error, SegmentError):
                mend = "remove it, or choose another fleet.runtime_dir"
                raise RuntimeDirectoryRefused(error.path, error.why, mend) from error
            if isinstance(error, OSError):
                place = Path(error.filename or self.runtime_dir)
                why = error.strerror or str(error)
                mend = "make room, or choose another fleet.runtime_dir"
                raise RuntimeDirectoryRefused(place, why, mend) from error
            raise
        return self

    def _open(self) -> None:
        self._shm_lock = self._stack.enter_context(locked(self.shm_dir, self.fleet))
        self._lock = self._stack.enter_context(locked(self.runtime_dir, self.fleet))
        self.keep(self.inhabited)  # until they are taken over, also if we are refused
        former_names = self._lock.former_names()
        names = tuple(dict.fromkeys((*self._names, *former_names)))
        # Dead ones too: their workers may live, and hold listeners that carry their number.
        self._helpers = self._lock.former_pairs("zygotes")
        ours = {pid for pid, _ticks in self._helpers}
        former_pid = self._lock.former.get("pid")
        ours |= {former_pid} if isinstance(former_pid, int) else set()
        self._refuse_foreign(ours)
        self._refuse_foreign_of(self._names, ours)
        self._former_helpers = list(self._helpers)
        self._noted = list(names)
        self._lock.note(names=self._noted, zygotes=self._helpers)
        # From here on everything below these names is ours, of this life or the one before.
        data = self.runtime_dir / DATA
        data_ours = self._lock.former.get("data_created") is True or not data.exists()
        self._lock.note(data_created=data_ours)
        data.mkdir(mode=0o700, exist_ok=True)
        if data_ours:
            self._stack.callback(self._unless_kept, _remove_directory, data)
        self._stack.callback(self._unless_kept, self._clear_runtime)
        self._stack.callback(self._unless_kept, self._clear_shm)
        self._sweep(former_names)

    def _refuse_foreign(self, ours: set[int]) -> None:
        """Raise for anything that stands where something of ours must be and is not ours."""
        table = table_file(self.shm_dir)
        with contextlib.suppress(FileNotFoundError):
            if (owner := table.lstat().st_uid) != os.geteuid():
                raise RuntimeDirectoryRefused(table, f"it is user {owner}'s", "move it away")
        refuse_unless_ours(table)
        ownership.check_private_directory(self.runtime_dir / DATA)
        for name, kind in KINDS.items():
            ownership.check_socket(self.runtime_dir / name, kind, ours)

    def _refuse_foreign_of(self, names: Iterable[str], ours: Collection[int]) -> None:
        for name in names:
            self._of(name).refuse_foreign(ours)

    def _of(self, name: str) -> Belongings:
        return Belongings(self.shm_dir, self.runtime_dir, name)

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    # Over the supervisor's death ---------------------------------------------------------------

    @property
    def inhabited(self) -> bool:
        """Whether a worker of an earlier life lives."""
        return any(is_held(path) for path in self.shm_dir.glob(f"*{STATS_SUFFIX}"))

    def keep(self, kept: bool = True) -> None:
        """Leave everything as it is at the end, for the next supervisor, or do not."""
        self.kept = self._lock.kept = self._shm_lock.kept = kept

    @property
    def epoch(self) -> int:
        """The last supervisor's number, 0 if there was none: for when its table is lost."""
        noted = self._shm_lock.former.get("epoch")
        return noted if isinstance(noted, int) and 0 < noted < EPOCH_MAX else 0

    def note_epoch(self, epoch: int) -> None:
        """Write our own number down for the next life."""
        with contextlib.suppress(OSError):  # a full file system: the table has it, too
            self._shm_lock.note(epoch=epoch)

    def refresh(self) -> None:
        """Have what the next life needs not taken for forgotten. Call it now and then."""
        with contextlib.suppress(OSError):
            self._lock.refresh()

    @property
    def events_socket(self) -> Path:
        """The fleet's event endpoint."""
        return self.runtime_dir / EVENTS

    @property
    def control_socket(self) -> Path:
        """Where the command line sends its orders."""
        return self.runtime_dir / CONTROL

    @property
    def wake_socket(self) -> Path:
        """Where workers say that they have written an event."""
        return self.runtime_dir / WAKE

    @property
    def zygote_socket(self) -> Path:
        """Where the zygote is reached."""
        return self.runtime_dir / ZYGOTE

    def data_socket(self, name: str) -> Path:
        """The data endpoint of a connection."""
        return data_socket(self.runtime_dir, name)

    # Connections that come and go --------------------------------------------------------------

    def check(self, names: Iterable[str]) -> None:
        """
        Look whether connections could be admitted; changes nothing.

        Raises:
            RuntimeDirectoryRefused: If something that is not ours is where theirs must be.

        """
        self._refuse_foreign_of(names, self._helper_pids())

    def admit(self, connections: Sequence[ConnectionSpec]) -> None:
        """
        Make room for more connections, and write them down for the next life.

        Raises:
            RuntimeDirectoryRefused: As ``check``; then nobody is admitted.

        """
        names = [connection.name for connection in connections]
        self.check(names)
        self._noted = list(dict.fromkeys((*self._noted, *names)))
        self._note_names()
        self._names += [name for name in names if name not in self._names]

    def dismiss(self, name: str) -> None:
        """Remove what a connection has left that has no process and will have none."""
        self._names.remove(name)
        its = self._of(name)
        its.remove_notes()
        its.remove_segments()
        its.remove_endpoint(self._helper_pids())
        self._noted.remove(name)
        self._note_names()

    def _note_names(self) -> None:
        with contextlib.suppress(OSError):  # a full file system: the next life sweeps less
            self._lock.note(names=self._noted)

    def _helper_pids(self) -> set[int]:
        return {pid for pid, _ticks in self._helpers}

    # Helpers of this life and the one before ---------------------------------------------------

    @property
    def former_helpers(self) -> list[tuple[int, int]]:
        """The earlier life's fork helpers, dead or alive, each pid and start ticks."""
        return self._former_helpers

    def note_helper(self, pid: int) -> None:
        """Write a fork helper down, so that the next life finds it should this one be killed."""
        self._helpers = [*self._helpers, (pid, start_ticks(pid))][-HELPERS_MAX:]
        with contextlib.suppress(OSError):  # a full file system: it is then found by nobody
            self._lock.note(zygotes=self._helpers)

    def _unless_kept(self, clear: Callable[..., None], *arguments: object) -> None:
        if not self.kept:
            clear(*arguments)

    # Sweeping and clearing ---------------------------------------------------------------------

    def _sweep(self, former_names: list[str]) -> None:
        """Remove what killed processes left, and what belongs to connections now gone."""
        for name in {*former_names, *self._names}:  # what an earlier life changed is over
            its = self._of(name)
            if not its.has_worker:
                its.remove_notes()
        for suffix, kept in ((STATS_SUFFIX, self._names), (JOURNAL_SUFFIX, self._journaled)):
            for path in self.shm_dir.glob(f"*{suffix}"):
                if path.name.removesuffix(suffix) not in kept:
                    remove_segment(path)
        self._remove_unfinished()
        for path in [*self.runtime_dir.glob(".*"), *(self.runtime_dir / DATA).glob(".*")]:
            if path.name[1:].isdigit() and not start_ticks(int(path.name[1:])):
                for kind in set(KINDS.values()):  # a listener that was not yet renamed
                    ownership.remove_socket(path, kind)
        for name in former_names:
            if name not in self._names:
                self._of(name).remove_endpoint()

    def _clear_shm(self) -> None:
        for name in self._noted:  # among them those whose workers lived when we came, and had to go
            self._of(name).remove_notes()
        for suffix in (STATS_SUFFIX, JOURNAL_SUFFIX):
            for path in self.shm_dir.glob(f"*{suffix}"):
                remove_segment(path)
        self._remove_unfinished()
        checked.remove(self.shm_dir)
        remove_segment(table_file(self.shm_dir))

    def _remove_unfinished(self) -> None:
        for path in self.shm_dir.glob(".*.tmp"):
            if UNFINISHED.fullmatch(path.name):
                remove_segment(path, finished=False)

    def _clear_runtime(self) -> None:
        for name, kind in KINDS.items():
            ownership.remove_socket(self.runtime_dir / name, kind)
        for name in self._noted:
            self._of(name).remove_endpoint()


def _remove_directory(path: Path) -> None:
    with contextlib.suppress(OSError):  # something of somebody else's is in it
        path.rmdir()
