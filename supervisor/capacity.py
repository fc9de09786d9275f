"""Capacity: whether this machine's shared memory can carry a fleet."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from shm.directory import base_directory, fleet_directory
from shm.journal import journal_path
from shm.journal_layout import journal_bytes
from shm.layout import stats_bytes
from shm.segment_lock import is_held
from shm.stats import stats_path
from supervisor.errors import FleetError
from supervisor.exit_codes import CONFIGURATION
from supervisor.fleet import Fleet
from worker.spec import ConnectionSpec

MEMORY_MAX = "memory.max"


class TooLarge(FleetError):
    """
    The segments of the fleet do not fit into shared memory.

    ``place`` names what is too small: a directory, or the file that holds a cgroup's limit.
    """

    exit_code = CONFIGURATION

    def __init__(self, place: Path, needed: int, free: int, fitting: int, wanted: int) -> None:
        super().__init__(place, needed, free, fitting, wanted)
        self.place, self.needed, self.free = place, needed, free
        self.fitting, self.wanted = fitting, wanted

    def __str__(self) -> str:
        is_limit = self.place.name == MEMORY_MAX
        has = "allows" if is_limit else "has"
        mend = "raise it" if is_limit else "enlarge it"
        elsewhere = "" if is_limit else ", or name another place with FEEDWARDEN_SHM"
        return (
            f"{self.place} {has} {self.free:,} bytes{'' if is_limit else ' free'}, the fleet's "
            f"segments need {self.needed:,}: {self.fitting} of {self.wanted} connections would "
            f"fit; {mend}, lower publish.journal.size{elsewhere}"
        )


def refuse_if_too_large(fleet: Fleet) -> None:
    """
    Add up what the fleet needs in shared memory.

    One that has all of it, its workers living, is never refused: that would leave them unwatched.

    Raises:
        DirectoryRefused: If FEEDWARDEN_SHM names no directory.
        TooLarge: If that is more than is free, or than our cgroup may hold (pages of shared
            memory are charged to whoever touches them first: to our workers).

    """
    directory = fleet_directory(fleet.name)
    sizes = [
        segment_bytes(connection) - _kept_bytes(directory, connection)
        for connection in fleet.connections
    ]
    if not any(sizes):
        return
    # A worker that is replaced has two stats segments for a moment.
    twice = max(stats_bytes(connection.publish.ring) for connection in fleet.connections)
    _refuse_unless_fitting(sizes, twice)


def refuse_without_room(
    new: Sequence[ConnectionSpec], replaced: Sequence[tuple[ConnectionSpec, ConnectionSpec]]
) -> None:
    """
    Add up what a running fleet will need besides what it has.

    Args:
        new: Connections that it gets.
        replaced: Those whose process is replaced, as they were and as they will be. All have two
            stats segments for a moment, and two journals if the size is another.

    Raises:
        DirectoryRefused: If FEEDWARDEN_SHM names no directory.
        TooLarge: If that does not fit.

    """
    twice = 0
    for former, wanted in replaced:
        twice += stats_bytes(wanted.publish.ring)
        if former.publish.journal != wanted.publish.journal:
            twice += journal_bytes(wanted.publish.journal)
    if new or twice:
        _refuse_unless_fitting([segment_bytes(connection) for connection in new], twice)


def _refuse_unless_fitting(sizes: list[int], twice: int) -> None:
    base = base_directory()
    space = os.statvfs(base)
    place, free = min(
        [(base, space.f_bavail * space.f_frsize), *memory_limits()], key=lambda found: found[1]
    )
    needed = sum(sizes) + twice
    if needed <= free:
        return
    fitting, left = 0, free - twice
    for size in sorted(sizes):
        left -= size
        if left < 0:
            break
        fitting += 1
    raise TooLarge(place, needed, free, fitting, len(sizes))


def segment_bytes(connection: ConnectionSpec) -> int:
    """Return what a connection takes in shared memory."""
    return stats_bytes(connection.publish.ring) + journal_bytes(connection.publish.journal)


def _kept_bytes(directory: Path, connection: ConnectionSpec) -> int:
    """
    Return what it takes already.

    The next worker goes on in a journal of the same size; a living one keeps what it has.
    """
    wanted = journal_bytes(connection.publish.journal)
    kept = 0
    try:
        found = journal_path(directory, connection.name).stat().st_size
        kept += wanted if found == wanted else 0
    except OSError:
        pass
    try:
        path = stats_path(directory, connection.name)
        kept += path.stat().st_size if is_held(path) else 0
    except OSError:
        pass
    return min(kept, segment_bytes(connection))


def memory_limits(
    cgroups: Path = Path("/sys/fs/cgroup"), mine: Path = Path("/proc/self/cgroup")
) -> Iterator[tuple[Path, int]]:
    """Yield the memory limits of our cgroup and those around it (cgroup v2), each with its file."""
    try:
        lines = mine.read_text().splitlines()
    except OSError:
        return
    ours = next((line[3:] for line in lines if line.startswith("0::")), None)
    if ours is None:
        return
    relative = Path(ours.lstrip("/"))
    for group in (relative, *relative.parents):
        file = cgroups / group / MEMORY_MAX
        try:
            limit = file.read_text().strip()
        except OSError:  # the root has none, and a container may not see its own path
            continue
        if limit.isdecimal():  # else "max"
            yield file, int(limit)
