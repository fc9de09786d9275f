"""Wire: one WebSocket life on one socket, as its owner sees it, and which engine it runs on.

It decides nothing but how a socket ends; when to open and close one is the session's. ``picows``
is the fast engine. ``websockets`` is the reference, and the one that inflates permessage-deflate.
"""

import ssl
from typing import Literal, Protocol

from worker.picows_wire import PicowsWire
from worker.socket_wire import Route, WireEvents
from worker.spec import ConnectionSpec
from worker.websockets_wire import WebsocketsWire

__all__ = ["Route", "Wire", "WireEvents", "engine_of", "make_wire", "tls_context"]


class Wire(Protocol):
    """
    One socket. Every wire that was opened ends with exactly one ``WireEvents.on_closed``.

    ``written_ns`` tells when the latest bytes were handed to the socket, ``read_ns`` when the
    latest were taken from it, CLOCK_MONOTONIC both.
    """

    written_ns: int
    read_ns: int

    def open(self, context: ssl.SSLContext | None) -> None:
        """Resolve, connect and shake hands."""

    def pending_bytes(self) -> int:
        """Return how many bytes wait to be read, here and in the socket (FIONREAD, tcp(7))."""

    def send_text(self, payload: bytes) -> bool:
        """Send a text message; return whether the socket took it."""

    def send_binary(self, payload: bytes) -> bool:
        """Send a binary message; return whether the socket took it."""

    def send_ping(self, body: bytes) -> bool:
        """Send a PING frame; return whether the socket took it."""

    def set_option(self, level: int, option: int, value: int) -> None:
        """Set an option of the open socket (setsockopt(2)); nothing once it is gone."""

    async def drained(self) -> None:
        """Wait until the peer keeps up again, or the socket is gone."""

    def close(self, code: int, reason: str, *, wait: bool) -> None:
        """Send a close frame; the socket is gone within ``close_timeout``, answered or not."""

    def abort(self) -> None:
        """Drop the socket, or the dial, now."""


def engine_of(spec: ConnectionSpec) -> Literal["websockets", "picows"]:
    """Return the engine: ``auto`` is picows wherever it can do what is asked."""
    if spec.engine == "auto":
        return "websockets" if spec.compression else "picows"
    return spec.engine


def make_wire(spec: ConnectionSpec, route: Route, events: WireEvents) -> Wire:
    """
    Return a wire that is not opened yet.

    Raises:
        ValueError: If the route's URL cannot be dialled.

    """
    engine = WebsocketsWire if engine_of(spec) == "websockets" else PicowsWire
    return engine(spec, route, events)


def tls_context(url: str, ca: str | None) -> ssl.SSLContext | None:
    """
    Return the context of a ``wss`` connection: peer and name always verified.

    Args:
        url: Where to dial; a login may have changed it.
        ca: The operator's own CA file.

    Raises:
        OSError: If the operator's CA file cannot be read.

    """
    if not url.lower().startswith("wss:"):
        return None
    return ssl.create_default_context(cafile=ca)
