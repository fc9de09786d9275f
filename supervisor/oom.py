"""OOM kills: whether a worker died because memory ran out.

The OOM killer ends a process by SIGKILL, like anybody else; only a counter of the cgroup that the
process is in tells its kills apart (``memory.events`` of version 2, ``memory.oom_control`` of
version 1, see cgroups(7)). A counter that rose of late, and a worker of that cgroup that died of a
SIGKILL that nobody owns up to, are taken for cause and effect.
"""

import os
import re
from pathlib import Path

V1_COUNTER, V2_COUNTER = "memory.oom_control", "memory.events"
KILLS = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)
COUNTER_BYTES_MAX = 4096


class OomKills:
    """
    The counters of all cgroups that workers of a fleet are in.

    Args:
        root: Of the file system; another one in tests.

    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._counters: dict[str, Path | None] = {}  # by what /proc says of a process
        # Kills that are accounted for: as counted by the last look but one, and by the last.
        self._accounted: dict[Path, tuple[int, int]] = {}

    def counter_of(self, pid: int) -> Path | None:
        """Return the file that counts the kills of a process's cgroup; ``None`` if none does."""
        try:
            groups = (self._root / f"proc/{pid}/cgroup").read_text()
        except OSError:
            return None
        if groups not in self._counters:
            self._counters[groups] = counter = self._counter(groups)
            if counter is not None and counter not in self._accounted:
                now = _kills(counter)
                self._accounted[counter] = (now, now)
        return self._counters[groups]

    def look(self) -> None:
        """Forget kills that no worker's death has followed; to be called now and then."""
        for counter, (_before, last) in self._accounted.items():
            self._accounted[counter] = (last, _kills(counter))

    def claim(self, counter: Path | None) -> bool:
        """Return whether a death now is one that this counts; each kill is claimed once."""
        if counter is None:
            return False
        accounted, last = self._accounted[counter]
        if _kills(counter) <= accounted:
            return False
        self._accounted[counter] = (accounted + 1, max(last, accounted + 1))
        return True

    def _counter(self, groups: str) -> Path | None:
        for line in groups.splitlines():
            _number, controllers, group = line.split(":", 2)
            if not controllers:
                found = self._nearest("sys/fs/cgroup", group, V2_COUNTER)
            elif "memory" in controllers.split(","):
                found = self._nearest("sys/fs/cgroup/memory", group, V1_COUNTER)
            else:
                continue
            if found is not None:
                return found
        return None

    def _nearest(self, mount: str, group: str, name: str) -> Path | None:
        """Return the innermost file of a name: a container may not see the whole of its path."""
        inner = Path(group.lstrip("/"))
        paths = (self._root / mount / around / name for around in (inner, *inner.parents))
        return next((path for path in paths if path.is_file()), None)


def _kills(counter: Path) -> int:
    """Return how many there were; looked at again and again, so it shall cost little."""
    try:
        descriptor = os.open(counter, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # the cgroup is gone
        return 0
    try:
        found = KILLS.search(os.read(descriptor, COUNTER_BYTES_MAX))
    except OSError:
        return 0
    finally:
        os.close(descriptor)
    return int(found[1]) if found else 0
