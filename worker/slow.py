"""Slow: subscribers whose queue was full, and for how long: the ``slow`` event.

libzmq tells that a queue is full once, when it becomes full, and neither whose it is nor when it
has room again. Both are asked of the kernel: what a peer does not read stays in its socket.
"""

import os
import select
import socket
import struct
from collections.abc import Callable

from worker.announcement import Announcement, EventKind

LOOK_NS = 100_000_000
CALM_NS = 1_000_000_000
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: SO_PEERCRED of unix(7)
PIDS_MAX = 16  # told in one event


class SlowWatch:
    """
    Episodes: from a full queue until nobody's has been full, and all have read, for a second.

    Args:
        stuck: Returns the processes that do not read at the moment; 0 for one that is not known.

    """

    def __init__(self, stuck: Callable[[], set[int]]) -> None:
        self._stuck = stuck
        self._pids: set[int] = set()
        self._first = self._last = self._times = 0
        self._began_ns = self._troubled_ns = self._looked_ns = 0
        self._is_calm = True

    @property
    def active(self) -> bool:
        """Whether there is an episode."""
        return self._times > 0

    def full(self, seq: int, now_ns: int) -> Announcement | None:
        """
        A queue was full when ``seq`` was to be sent: its subscriber has lost it.

        Returns:
            What to announce: the first of an episode is told at once.

        """
        self._times += 1
        self._last, self._troubled_ns, self._is_calm = seq, now_ns, False
        if self._times > 1:
            return None
        self._first, self._began_ns, self._looked_ns = seq, now_ns, now_ns
        self._pids = self._stuck()
        return Announcement(kind=EventKind.SLOW, detail={"first": seq, "pids": self._listed()})

    def look(self, seq: int, now_ns: int) -> Announcement | None:
        """See how an episode goes on, ``seq`` being the head; return its end to announce."""
        if not self.active or now_ns - self._looked_ns < LOOK_NS:
            return None
        self._looked_ns = now_ns
        stuck = self._stuck()
        if stuck:
            self._pids |= stuck
            self._last, self._troubled_ns, self._is_calm = seq, now_ns, False
        elif not self._is_calm:
            self._last, self._is_calm = seq, True  # it reads again since the look before
        if now_ns - self._troubled_ns < CALM_NS:
            return None
        detail = {
            "first": self._first,
            "last": self._last,
            "times": self._times,
            "duration_s": round((self._troubled_ns - self._began_ns) / 1e9, 3),
            "pids": self._listed(),
        }
        self._times = 0
        return Announcement(kind=EventKind.SLOW, detail=detail)

    def _listed(self) -> list[int]:
        return sorted(self._pids - {0})[:PIDS_MAX]


def stuck_peers(address: str) -> set[int]:
    """
    Return the processes connected to a Unix socket of ours that do not read what was sent.

    Args:
        address: The listening socket's, as bound.

    """
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as link:
                ours = link.family == socket.AF_UNIX and link.getsockname() == address
                if ours and _is_stuck(link):
                    size = CREDENTIALS.size
                    raw = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
                    found.add(CREDENTIALS.unpack(raw)[0])
        except OSError:  # closed meanwhile
            continue
    return found


def _is_stuck(link: socket.socket) -> bool:
    """Return whether nothing more can be written because the peer does not read."""
    if link.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):  # the listener is never writable
        return False
    poll = select.poll()
    poll.register(link, select.POLLOUT)
    return not poll.poll(0)
