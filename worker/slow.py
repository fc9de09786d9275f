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

FIRST_LOOK_NS = 10_000_000
LOOK_NS = 100_000_000
CALM_NS = 1_000_000_000
# It reads again since the look before; libzmq takes note of that a moment later.
CALM_LOOKS = 2
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: SO_PEERCRED of unix(7)
PIDS_MAX = 16  # told in one event


class SlowWatch:
    """
    Episodes: from a full queue until nobody's has been full, and all have read, for a second.

    Args:
        stuck: Returns the processes whose sockets are full at the moment. Who is among them in two
            looks in a row does not read: a busy one is there for a moment now and then.

    """

    def __init__(self, stuck: Callable[[], set[int]]) -> None:
        self._stuck = stuck
        self._seen: set[int] = set()
        self._pids: set[int] = set()
        self._first = self._last = self._times = 0
        self._began_ns = self._troubled_ns = self._looked_ns = 0
        self._calm_looks = 0
        self._is_told = False

    @property
    def active(self) -> bool:
        """Whether there is an episode."""
        return self._times > 0

    def full(self, seq: int, now_ns: int) -> None:
        """A queue was full when ``seq`` was to be sent: its subscriber has lost it."""
        self._times += 1
        self._last, self._troubled_ns, self._calm_looks = seq, now_ns, 0
        if self._times == 1:
            self._first, self._began_ns, self._looked_ns = seq, now_ns, now_ns
            self._seen, self._pids, self._is_told = self._stuck(), set(), False

    def look(self, seq: int, now_ns: int) -> Announcement | None:
        """See how an episode goes on, ``seq`` being the head; return its begin or end to tell."""
        wait_ns = LOOK_NS if self._is_told else FIRST_LOOK_NS
        if not self.active or now_ns - self._looked_ns < wait_ns:
            return None
        self._looked_ns = now_ns
        seen, self._seen = self._seen, self._stuck()
        lasting = seen & self._seen
        self._pids |= lasting
        if lasting:
            self._last, self._troubled_ns, self._calm_looks = seq, now_ns, 0
        else:
            self._calm_looks += 1
            if self._calm_looks <= CALM_LOOKS:
                self._last = seq
        if not self._is_told:
            self._is_told = True
            return _slow(first=self._first, pids=self._listed())
        if now_ns - self._troubled_ns < CALM_NS:
            return None
        times, self._times = self._times, 0
        return _slow(
            first=self._first,
            last=self._last,
            times=times,
            duration_s=round((self._troubled_ns - self._began_ns) / 1e9, 3),
            pids=self._listed(),
        )

    def _listed(self) -> list[int]:
        return sorted(self._pids - {0})[:PIDS_MAX]


def _slow(**detail: object) -> Announcement:
    return Announcement(kind=EventKind.SLOW, detail=detail)


def stuck_peers(address: str) -> set[int]:
    """
    Return the processes connected to a Unix socket of ours to which nothing can be written now.

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
    """Return whether nothing more can be written until the peer reads."""
    if link.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):  # the listener is never writable
        return False
    poll = select.poll()
    poll.register(link, select.POLLOUT)
    return not poll.poll(0)
