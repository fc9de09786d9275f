"""Which fleets there are on this host, and which connections a command means."""

import difflib
import fnmatch
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from shm.directory import fleet_directories
from shm.errors import SegmentError, SegmentUnavailable
from supervisor.errors import NoSuchConnection, NoSuchFleet
from supervisor.registry_view import RegistryView
from supervisor.slot import Slot
from worker.endpoints import table_file


def find(wanted: str | None, *, running: bool) -> Path:
    """
    Return the shared-memory directory of the fleet a command means.

    Args:
        wanted: The fleet's name; ``None`` for the only one there is.
        running: Whether only a fleet with a living supervisor will do.

    Raises:
        NoSuchFleet: If there is none, or several and no name.

    """
    found: dict[str, list[Path]] = {}
    for directory in fleet_directories():
        if not _has_table(directory) or (running and not is_supervised(directory)):
            continue
        found.setdefault(directory.name, []).append(directory)
    names = tuple(sorted(found))
    if wanted is None and len(names) == 1:
        wanted = names[0]
    if wanted is None or wanted not in found:
        raise NoSuchFleet(wanted, names, _without_supervisor(wanted) if running else ())
    # Our own user's fleet before another's of the same name.
    return min(found[wanted], key=_is_anothers)


def _has_table(directory: Path) -> bool:
    return os.path.exists(table_file(directory))  # False, too, where we may not look


def _is_anothers(directory: Path) -> bool:
    try:
        return directory.stat().st_uid != os.geteuid()
    except OSError:  # it ended this moment
        return True


def _without_supervisor(wanted: str | None) -> tuple[str, ...]:
    """Return the fleets that are there and have no supervisor."""
    there = {path.name for path in fleet_directories() if _has_table(path)}
    return tuple(sorted(name for name in there if wanted in (None, name)))


def select(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """
    Return the names that match any of the patterns (globs), all of them without a pattern.

    Raises:
        NoSuchConnection: If a pattern matches nothing.

    """
    if not patterns:
        return list(names)
    chosen: dict[str, None] = {}
    for pattern in patterns:
        matching = fnmatch.filter(names, pattern)
        if not matching:
            raise NoSuchConnection(pattern, tuple(difflib.get_close_matches(pattern, names)))
        chosen.update(dict.fromkeys(matching))
    return list(chosen)


def is_supervised(directory: Path) -> bool:
    """
    Return whether the fleet of a directory has a living supervisor.

    Raises:
        SegmentUnavailable: If nobody can tell for now.

    """
    try:
        with RegistryView.open(directory) as registry:
            return registry.supervisor_alive()
    except SegmentUnavailable:
        raise
    except (SegmentError, FileNotFoundError):
        return False


def opened(directory: Path) -> RegistryView:
    """
    Return the table of the fleet of a directory.

    Raises:
        NoSuchFleet: If the fleet ended this moment.
        SegmentError: If the file is not a table of this version.

    """
    try:
        return RegistryView.open(directory)
    except FileNotFoundError:
        raise NoSuchFleet(directory.name, ()) from None


def slots_of(registry: RegistryView, directory: Path) -> list[Slot]:
    """
    Return every slot of a fleet's table.

    Raises:
        SegmentError: If a number in it is none that a supervisor writes.

    """
    try:
        return registry.slots()
    except (ValueError, IndexError, OverflowError, struct.error) as error:
        why = f"holds what no supervisor writes ({error}); run the fleet again"
        raise SegmentError(table_file(directory), why) from error
