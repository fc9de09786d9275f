"""A cgroup of a test's own, with a limit of memory."""

import contextlib
from pathlib import Path

import pytest
from fleet import wait_for

MOUNT = Path("/sys/fs/cgroup")
V1 = ("memory.usage_in_bytes", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "{}")
V2 = ("memory.current", "memory.max", "memory.swap.max", "0")


class Cgroup:
    """Where processes are put by ``prefix``, a command that runs another one."""

    def __init__(self, path, usage, limit, swap, swap_text):
        self.path = path
        self._usage, self._limit = path / usage, path / limit
        self._swap, self._swap_text = path / swap, swap_text
        join = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
        self.prefix = ("sh", "-c", join, str(path))

    def leave_room(self, room):
        """Limit it to what it takes now and so many bytes more, none of them in swap."""
        limit = int(self._usage.read_text()) + room
        self._limit.write_text(str(limit))
        if self._swap.exists():
            self._swap.write_text(self._swap_text.format(limit))

    def is_empty(self):
        return not (self.path / "cgroup.procs").read_text()


@contextlib.contextmanager
def memory_cgroup(name):
    """A fresh cgroup with a limit that can be set; skips the test where none is to be had."""
    cgroup = _made(name)
    if cgroup is None:
        pytest.skip("no cgroup with a memory limit can be made: needs root or a delegated one")
    try:
        yield cgroup
    finally:
        wait_for(cgroup.is_empty, "nobody in the cgroup")
        cgroup.path.rmdir()


def _made(name):
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _number, controllers, group = line.split(":", 2)
        inner = Path(group.lstrip("/"))
        if "memory" in controllers.split(","):
            mount, names = MOUNT / "memory", V1
        elif not controllers:
            mount, names = MOUNT, V2
        else:
            continue
        for around in (inner, *inner.parents):
            path = mount / around / name
            with contextlib.suppress(OSError):
                path.mkdir()
                if (path / names[1]).exists():  # else its parent gives no limits to its children
                    return Cgroup(path, *names)
                path.rmdir()
    return None
