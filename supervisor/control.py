"""Control: the private conversation between command line and supervisor on ``control.sock``.

A request is answered at once with what was accepted; whether it came true is read from shared
memory by whoever wants to wait. Orders on a worker are idempotent and the last intent wins, so no
order is ever refused because another one is under way.
"""

import asyncio
import contextlib
import functools
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import zmq

from supervisor.exit_codes import FAILED
from supervisor.gate import Gate, is_readable

log = logging.getLogger("supervisor.control")

DONTWAIT = int(zmq.DONTWAIT)
REQUEST_BYTES_MAX = 1024 * 1024
BUDGET = 64

Verb = Literal["start", "stop", "restart", "rotate", "kill", "reload", "shutdown"]


class Order(msgspec.Struct, frozen=True):
    """
    What the command line asks for.

    ``signal`` is for kill only; ``path`` ("" is the file of ``run``) and ``dry_run`` for reload;
    ``keep`` for shutdown: everything but the supervisor stays.
    """

    verb: Verb
    names: tuple[str, ...] = ()
    signal: str = "SIGKILL"
    path: str = ""
    dry_run: bool = False
    keep: bool = False


class Reply(msgspec.Struct, frozen=True):
    """
    ``error`` is empty if the order was accepted, else ``code`` is what the command ends with.

    ``lines`` say what is done, where that is not plain; ``document`` the same for ``--json``, a
    refusal included. ``begun_ns``: CLOCK_MONOTONIC when a reload began to change the fleet, 0 if
    nothing is changed.
    """

    error: str = ""
    code: int = FAILED
    lines: tuple[str, ...] = ()
    document: dict[str, Any] | None = None
    begun_ns: int = 0


def absolute(path: Path | None) -> str:
    """Return a path that means the same in the supervisor's process, "" for its own file."""
    return "" if path is None else os.fspath(path.absolute())


_orders = msgspec.json.Decoder(Order)
_replies = msgspec.json.Decoder(Reply)


class Control:
    """
    The supervisor's end: a ROUTER on a listener of ours.

    Args:
        context: The supervisor's ZeroMQ context.
        listener: A listening socket of ``path``; it is ours from here.
        path: ``<runtime_dir>/control.sock``.
        obey: Carries out an order; what takes its time is answered when it is done.
        needed: Descriptors that the fleet itself needs (supervisor/gate.py).

    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        listener: socket.socket,
        path: Path,
        obey: Callable[[Order], Reply | asyncio.Future[Reply]],
        needed: int = 0,
    ) -> None:
        self._obey = obey
        self._router = context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 100)
        self._router.setsockopt(zmq.MAXMSGSIZE, REQUEST_BYTES_MAX)
        self.gate = Gate(self._router, listener, path, needed)

    def fileno(self) -> int:
        """The descriptor that becomes readable when ``drain`` has something to do."""
        return int(self._router.getsockopt(zmq.FD))

    def drain(self) -> None:
        """
        Answer what has come. Call it when ``fileno`` is readable, and now and then besides.

        The descriptor is edge-triggered and any use of the socket may eat the edge
        (zmq_getsockopt(3), ZMQ_FD), so each use is followed by another look.
        """
        for _ in range(BUDGET):
            if not is_readable(self._router):
                return
            try:
                peer, *frames = self._router.recv_multipart(DONTWAIT)
            except zmq.Again:
                return
            reply = self._answer(frames[-1] if frames else b"")
            if isinstance(reply, Reply):
                self._send(peer, reply)
            else:
                reply.add_done_callback(functools.partial(self._send_later, peer))
        asyncio.get_running_loop().call_soon(self._drain_on)

    def _drain_on(self) -> None:
        if not self._router.closed:
            self.drain()

    def _send(self, peer: bytes, reply: Reply) -> None:
        with contextlib.suppress(zmq.ZMQError):  # who asked has gone or reads nothing: it stands
            self._router.send_multipart([peer, msgspec.json.encode(reply)], DONTWAIT)

    def _send_later(self, peer: bytes, done: "asyncio.Future[Reply]") -> None:
        if self._router.closed:
            return
        if done.cancelled():
            self._send(peer, Reply("the fleet is being shut down"))
        elif (error := done.exception()) is not None:
            log.error("an order failed", exc_info=error)
            self._send(peer, Reply(f"failed: {type(error).__name__}: {error}"))
        else:
            self._send(peer, done.result())
        self.drain()

    def _answer(self, request: bytes) -> "Reply | asyncio.Future[Reply]":
        try:
            order = _orders.decode(request)
        except (ValueError, RecursionError) as error:  # MsgspecError is a ValueError
            return Reply(f"not an order: {error}")
        try:
            return self._obey(order)
        except Exception as error:
            log.exception("an order failed: %s", order.verb)
            return Reply(f"failed: {type(error).__name__}: {error}")

    def close(self) -> None:
        """Close after at most 100 ms of sending what is queued."""
        self.gate.close()
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
