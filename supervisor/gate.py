"""Gate: shuts an endpoint while the process is short of descriptors, and opens it again.

libzmq aborts the whole process when accept(2) on a Unix socket fails with EMFILE
(ipc_listener.cpp), so it must never come to that: somebody who opens a thousand mute connections
would end the supervision. A shut endpoint drops its peers (libzmq ties them to the listener);
they wait in the kernel's queue and come back by themselves. The listening socket stays ours.
"""

import contextlib
import logging
import os
import socket
from pathlib import Path

import zmq

from supervisor import descriptors

log = logging.getLogger("supervisor.gate")

RESERVE_MIN, RESERVE_MAX = 32, 256
REOPEN_MARGIN = 16
HANDSHAKE_MS = 5_000  # a peer that says nothing for so long is dropped
DONTWAIT, POLLIN = int(zmq.DONTWAIT), int(zmq.POLLIN)


def is_readable(endpoint: "zmq.Socket[bytes]") -> bool:
    """Return whether a message waits. Mostly none does, and a recv that raises costs more."""
    return bool(int(endpoint.getsockopt(zmq.EVENTS)) & POLLIN)


class Gate:
    """
    Binds a ZeroMQ socket to a listener, as long as there is room.

    Args:
        endpoint: The socket; not bound yet.
        listener: A listening socket of ``path``; the gate owns it from here.
        path: Where it listens.
        needed: Descriptors that the fleet itself needs; half of the rest is for peers.

    """

    def __init__(
        self,
        endpoint: "zmq.Socket[bytes]",
        listener: socket.socket,
        path: Path,
        needed: int = 0,
    ) -> None:
        self._endpoint, self._listener, self._path = endpoint, listener, path
        spare = (descriptors.limit() - needed) // 2
        self._reserve = max(RESERVE_MIN, min(RESERVE_MAX, spare))
        self._monitor = endpoint.get_monitor_socket(zmq.EVENT_ACCEPTED)
        endpoint.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        self._open, self._bound = False, ""
        self._bind()

    def fileno(self) -> int:
        """The descriptor that becomes readable when ``look`` shall be called."""
        return int(self._monitor.getsockopt(zmq.FD))

    def look(self) -> None:
        """Shut or open by what is free. Call it when ``fileno`` is readable and on a timer."""
        # Only that somebody came is of interest, and it is bounded by the reserve.
        while is_readable(self._monitor):
            self._monitor.recv_multipart(DONTWAIT)
        free = descriptors.free()
        if self._open and free < self._reserve:
            self._open = False
            try:
                self._endpoint.unbind(self._bound)
            except zmq.ZMQError as error:
                log.error("%s cannot be shut: %s", self._path.name, error)
            log.error("%s shut: %d descriptors are free; peers are dropped", self._path.name, free)
        elif not self._open and free >= self._reserve + REOPEN_MARGIN:
            with contextlib.suppress(OSError, zmq.ZMQError):
                self._bind()
                log.warning("%s open again: %d descriptors are free", self._path.name, free)

    def _bind(self) -> None:
        self._endpoint.setsockopt(zmq.USE_FD, os.dup(self._listener.fileno()))  # libzmq closes it
        self._endpoint.bind(f"ipc://{self._path}")
        # Not always that: a socket goes by the name it was bound to, before it was renamed.
        bound = self._endpoint.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(bound, bytes)
        self._bound = bound.rstrip(b"\0").decode()
        self._open = True

    def close(self) -> None:
        """Let go of the listener and of the socket's monitor; the socket itself is the caller's."""
        self._endpoint.disable_monitor()
        self._monitor.close(0)
        self._listener.close()
