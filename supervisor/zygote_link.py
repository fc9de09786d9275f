"""The conversation between supervisor and zygote: one datagram a message, descriptors beside it.

SOCK_SEQPACKET keeps messages whole and in order and carries descriptors by SCM_RIGHTS (unix(7)).
An assignment of any size travels as a memfd, so no message comes near the socket's size limit.
"""

import os
import socket
from collections import deque
from typing import TypeVar

import msgspec

MESSAGE_BYTES_MAX = 64 * 1024


class Hello(msgspec.Struct, tag=True, frozen=True):
    """The first message on a link: whose supervisor speaks (``supervisor.program``)."""

    program: str


class Listen(msgspec.Struct, tag=True, frozen=True):
    """Bind ``path`` and keep the socket under ``name``. ``lend``: send a duplicate back."""

    name: str
    path: str
    lend: bool = False


class SpawnWorker(msgspec.Struct, tag=True, frozen=True):
    """Fork a worker on the listener of ``name``. Beside it: a memfd with the assignment."""

    name: str
    incarnation: int


class Unlisten(msgspec.Struct, tag=True, frozen=True):
    """Close the listener of ``name``; its path is the supervisor's to remove. No answer."""

    name: str


class End(msgspec.Struct, tag=True, frozen=True):
    """Exit as soon as there are no children."""


class Kept(msgspec.Struct, tag=True, frozen=True):
    """Before ``Welcome``, one each: a living child, or, with ``pid`` 0, a listener that is held."""

    name: str
    incarnation: int = 0
    pid: int = 0


class Welcome(msgspec.Struct, tag=True, frozen=True):
    """The answer to ``Hello``, after everything that a new supervisor must know."""

    program: str


class Listening(msgspec.Struct, tag=True, frozen=True):
    """
    The answer to ``Listen``; beside it the socket if it was to be lent.

    ``refused``: something foreign stands at the path, so trying again is no use by itself.
    """

    name: str
    error: str = ""
    refused: bool = False


class WorkerSpawned(msgspec.Struct, tag=True, frozen=True):
    """The answer to ``SpawnWorker``; beside it the pidfd. ``pid`` is 0 if the fork failed."""

    name: str
    incarnation: int
    pid: int
    error: str = ""


class WorkerExited(msgspec.Struct, tag=True, frozen=True):
    """A child is gone and reaped. ``signal`` is a name of signal(7), or empty."""

    pid: int
    code: int | None
    signal: str


Request = Hello | Listen | Unlisten | SpawnWorker | End
Report = Kept | Welcome | Listening | WorkerSpawned | WorkerExited
Message = TypeVar("Message")

_requests = msgspec.msgpack.Decoder(Request)
_reports = msgspec.msgpack.Decoder(Report)
_encoder = msgspec.msgpack.Encoder()


def send(link: socket.socket, message: Request | Report, descriptor: int | None = None) -> None:
    """
    Send one message, with one descriptor beside it if given (it stays open here).

    Raises:
        BlockingIOError: If the link is non-blocking and full.
        OSError: If the other side has gone.

    """
    fds = [] if descriptor is None else [descriptor]
    socket.send_fds(link, [_encoder.encode(message)], fds)


class Outgoing:
    """Messages to be sent on a link as it takes them, each with its own descriptor beside it."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Request | Report, int | None]] = deque()

    def __bool__(self) -> bool:
        """Whether any waits."""
        return bool(self._waiting)

    def put(self, message: Request | Report, descriptor: int | None = None) -> None:
        """
        Have a message wait; ``descriptor`` is duplicated, the caller keeps its own.

        Raises:
            OSError: If there is no descriptor to be had; then the message does not wait.

        """
        self._waiting.append((message, None if descriptor is None else os.dup(descriptor)))

    def send(self, link: socket.socket) -> None:
        """
        Send as many as a non-blocking link takes.

        Raises:
            OSError: If the other side has gone.

        """
        while self._waiting:
            message, descriptor = self._waiting[0]
            try:
                send(link, message, descriptor)
            except BlockingIOError:
                return
            self._waiting.popleft()
            if descriptor is not None:
                os.close(descriptor)

    def drop(self) -> None:
        """Forget those that wait."""
        for _message, descriptor in self._waiting:
            if descriptor is not None:
                os.close(descriptor)
        self._waiting.clear()


def receive_request(link: socket.socket) -> tuple[Request, int | None] | None:
    """
    Return the next request and its descriptor, or ``None`` at the end of the link.

    The descriptor is missing if this process could not hold one more.

    Raises:
        msgspec.MsgspecError: If it is none; what came with it is closed.

    """
    return _receive(link, _requests)


def receive_report(link: socket.socket) -> tuple[Report, int | None] | None:
    """Return the next report and its descriptor; else as ``receive_request``."""
    return _receive(link, _reports)


def _receive(
    link: socket.socket, decoder: msgspec.msgpack.Decoder[Message]
) -> tuple[Message, int | None] | None:
    data, descriptors, _flags, _address = socket.recv_fds(link, MESSAGE_BYTES_MAX, 1)
    try:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        if data:
            return decoder.decode(data), descriptors.pop() if descriptors else None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return None
