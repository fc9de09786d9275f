"""Fleet watch: where a fleet is, and which of its connections a subscriber means.

The fleet need not run, nor be there at all; it may end and be run anew, with other connections.
"""

import fnmatch
from collections.abc import Sequence
from pathlib import Path

from shm.errors import DirectoryRefused, SegmentError, SegmentUnavailable
from shm.segment_lock import is_locked
from shm.stats import stats_path
from supervisor.errors import NoSuchFleet
from supervisor.fleets import find, is_supervised, opened, select, slots_of


class FleetWatch:
    """
    One fleet by name.

    Args:
        fleet: Its name.
        globs: Of connections; none means all.

    Attributes:
        names: The connections meant, as of the last look that found the fleet.
        unmatched: Globs that matched none of its connections then.
        shm_dir: Its directory, ``None`` before it was found.
        runtime_dir: Where its endpoints are, ``None`` before it was found.

    """

    def __init__(self, fleet: str, globs: Sequence[str]) -> None:
        self._fleet, self._globs = fleet, tuple(globs)
        self.names: tuple[str, ...] = ()
        self.unmatched: frozenset[str] = frozenset()
        self.shm_dir: Path | None = None
        self.runtime_dir: Path | None = None

    def require(self) -> None:
        """
        Look once.

        Raises:
            NoSuchFleet: If there is no such fleet.
            NoSuchConnection: If a glob matches none of its connections.
            SegmentError: If its table cannot be read.

        """
        shm_dir = find(self._fleet, running=False)
        with opened(shm_dir) as registry:
            every = [slot.name for slot in slots_of(registry, shm_dir)]
            self.names = tuple(select(self._globs, every))
            self.shm_dir, self.runtime_dir = shm_dir, registry.runtime_dir

    def look(self) -> bool:
        """
        Look again, without asking for anything; return whether the fleet was found.

        Raises:
            DirectoryRefused: If FEEDWARDEN_SHM names no directory.

        """
        try:
            shm_dir = find(self._fleet, running=False)
            with opened(shm_dir) as registry:
                every = [slot.name for slot in slots_of(registry, shm_dir)]
                if len(every) < registry.slot_count and set(every) < set(self.names):
                    return False  # it is being filled
                self.shm_dir, self.runtime_dir = shm_dir, registry.runtime_dir
        except DirectoryRefused:
            raise
        except (NoSuchFleet, SegmentError, OSError):  # the last: no descriptor to look with
            return False
        matching = {glob: fnmatch.filter(every, glob) for glob in self._globs or ("*",)}
        wanted = {name for names in matching.values() for name in names}
        self.names = tuple(name for name in every if name in wanted)
        self.unmatched = frozenset(glob for glob in self._globs if not matching[glob])
        return True

    def has_ended(self) -> bool:
        """Return whether neither supervisor nor any worker of the fleet is left, for certain."""
        if self.shm_dir is None:
            return False
        segments = [stats_path(self.shm_dir, name) for name in self.names]
        try:
            return not is_supervised(self.shm_dir) and not any(map(_is_held, segments))
        except SegmentUnavailable:
            return False


def _is_held(path: Path) -> bool:
    """Return whether a segment's owner lives; SegmentUnavailable if nobody can tell for now."""
    try:
        return is_locked(path)
    except SegmentUnavailable:
        raise
    except SegmentError:
        return False
