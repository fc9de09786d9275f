"""Spec handover: a changed specification on its way to the living worker of a connection.

It is written beside the worker's segment and taken over by rename, so that a reload may still be
refused; then the worker is told by signal to read it (``worker/succession.py``).
"""

from collections.abc import Callable
from pathlib import Path

import msgspec

from supervisor.spec_digest import cost, digest
from worker.endpoints import spec_file
from worker.respec import Change
from worker.spec import ConnectionSpec


class SpecHandover:
    """
    What the worker of one connection was given.

    Args:
        shm_dir: The fleet's directory.
        spec: The connection.
        tell: Has the worker read what was written.

    Attributes:
        given: The digest of what it was given last, with its birth or since.

    """

    def __init__(self, shm_dir: Path, spec: ConnectionSpec, tell: Callable[[], None]) -> None:
        self._file = spec_file(shm_dir, spec.name)
        self._fresh = self._file.with_name(f".{self._file.name}.tmp")
        self._tell = tell
        self.given = digest(spec)
        self._is_due = False  # it is to be told as soon as it listens

    def begin(self, spec: ConnectionSpec) -> None:
        """Take note that another process is given a specification with its birth."""
        self.given, self._is_due = digest(spec), False

    def cost(self, spec: ConnectionSpec) -> Change:
        """Return what a specification asks of the worker (``supervisor.spec_digest.cost``)."""
        return cost(self.given, digest(spec))

    def prepare(self, spec: ConnectionSpec) -> None:
        """
        Write a specification down, so that there is room for it.

        Raises:
            OSError: If there is none.

        """
        self._fresh.write_bytes(msgspec.msgpack.encode(spec))

    def unprepare(self) -> None:
        """Undo ``prepare``."""
        self._fresh.unlink(missing_ok=True)

    def commit(self) -> None:
        """Put what is prepared, if anything is, where the worker will find it."""
        if self._fresh.exists():
            self._fresh.rename(self._file)

    def give(self, spec: ConnectionSpec, *, listens: bool) -> None:
        """
        Have the worker take over what was put there.

        Args:
            spec: That.
            listens: Whether it serves. One that does not yet was born with the former one, and a
                signal before it listens would be its death: it is told when it does.

        """
        self.given, self._is_due = digest(spec), not listens
        if listens:
            self._tell()

    def listens(self) -> None:
        """Tell the worker now that it listens what was given to it before."""
        if self._is_due:
            self._is_due = False
            self._tell()
