"""Peers: the processes at the other ends of a Unix socket, as the kernel knows them.

libzmq tells nothing of its peers. Its sockets are found among our own descriptors by the address
they were accepted at, and looked at through a duplicate, which pins them.
"""

import contextlib
import os
import select
import socket
import struct
from collections.abc import Collection, Iterator

CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: SO_PEERCRED of unix(7)


def count(address: str) -> int:
    """Return how many connections a listening socket's address has, the listener left out."""
    return sum(not _is_listener(link) for link in _links(address))


def stuck(address: str) -> dict[int, int]:
    """
    Return the connections to which nothing can be written until the peer reads.

    Args:
        address: The listening socket's, as bound.

    Returns:
        Inode of each connection's socket, and the process at its other end.

    """
    return {
        os.fstat(link.fileno()).st_ino: _pid(link) for link in _links(address) if _is_full(link)
    }


def cut(address: str, inodes: Collection[int]) -> set[int]:
    """End these connections, what waits for them is dropped; return the processes they led to."""
    pids = set()
    for link in _links(address):
        if os.fstat(link.fileno()).st_ino in inodes:
            pids.add(_pid(link))
            with contextlib.suppress(OSError):  # it went by itself
                link.shutdown(socket.SHUT_RDWR)
    return pids


def _links(address: str) -> Iterator[socket.socket]:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as link:
                if link.family == socket.AF_UNIX and link.getsockname() == address:
                    yield link


def _pid(link: socket.socket) -> int:
    raw = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid: int = CREDENTIALS.unpack(raw)[0]
    return pid


def _is_full(link: socket.socket) -> bool:
    if _is_listener(link):  # it is never writable
        return False
    poll = select.poll()
    poll.register(link, select.POLLOUT)
    return not poll.poll(0)


def _is_listener(link: socket.socket) -> bool:
    return bool(link.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
