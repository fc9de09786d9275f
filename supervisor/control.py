"""Control: the private conversation between command line and supervisor on ``control.sock``.

A request is answered at once with what was accepted; whether it came true is read from shared
memory by whoever wants to wait. Orders on a worker are idempotent and the last intent wins, so no
order is ever refused because another one is under way.
"""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
import zmq

DONTWAIT = int(zmq.DONTWAIT)
REQUEST_BYTES_MAX = 1024 * 1024
BUDGET = 64

Verb = Literal["start", "stop", "restart", "kill", "shutdown"]


class Order(msgspec.Struct, frozen=True):
    """What the command line asks for. ``signal`` is for kill only."""

    verb: Verb
    names: tuple[str, ...] = ()
    signal: str = "SIGKILL"


class Reply(msgspec.Struct, frozen=True):
    """``error`` is empty if the order was accepted."""

    error: str = ""


_orders = msgspec.json.Decoder(Order)
_replies = msgspec.json.Decoder(Reply)


class Control:
    """
    The supervisor's end: a ROUTER on a listener of ours.

    Args:
        context: The supervisor's ZeroMQ context.
        listener: A listening socket of ``path``.
        path: ``<runtime_dir>/control.sock``.
        obey: Carries out an order, returns an error text or "".

    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        listener: socket.socket,
        path: Path,
        obey: Callable[[Order], str],
    ) -> None:
        self._obey = obey
        self._router = context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 100)
        self._router.setsockopt(zmq.MAXMSGSIZE, REQUEST_BYTES_MAX)
        self._router.setsockopt(zmq.USE_FD, listener.detach())  # libzmq closes it
        self._router.bind(f"ipc://{path}")

    def fileno(self) -> int:
        """The descriptor that becomes readable when ``drain`` has something to do."""
        return int(self._router.getsockopt(zmq.FD))

    def drain(self) -> None:
        """
        Answer what has come. Call it when ``fileno`` is readable and on a timer besides.

        The descriptor is edge-triggered and any use of the socket may eat the edge
        (zmq_getsockopt(3), ZMQ_FD), so a reader that waits for it alone loses requests.
        """
        for _ in range(BUDGET):
            try:
                peer, *frames = self._router.recv_multipart(DONTWAIT)
            except zmq.Again:
                return
            try:
                reply = Reply(self._obey(_orders.decode(frames[-1] if frames else b"")))
            except msgspec.MsgspecError as error:
                reply = Reply(f"not an order: {error}")
            try:
                self._router.send_multipart([peer, msgspec.json.encode(reply)], DONTWAIT)
            except zmq.Again:  # the asker has gone or reads nothing: the order stands
                continue

    def close(self) -> None:
        """Close after at most 100 ms of sending what is queued."""
        self._router.close()


def send_order(path: Path, order: Order, timeout_s: float) -> Reply | None:
    """Send one order to the supervisor at ``path`` and return its reply, ``None`` if none came."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(f"ipc://{path}")
        dealer.send(msgspec.json.encode(order))
        if not dealer.poll(int(timeout_s * 1000)):
            return None
        return _replies.decode(dealer.recv())
