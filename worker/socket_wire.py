"""Socket wire: one socket from dial to end, whatever engine speaks WebSocket on it.

What every engine needs and none may do its own way: dialling, telling what waits in the socket, a
peer that reads nothing, and the ways a socket ends. An engine adds the handshake and the frames
(``worker/websockets_wire.py``, ``worker/picows_wire.py``).
"""

import asyncio
import contextlib
import fcntl
import socket
import ssl
import struct
import termios
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Protocol

from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from worker.addresses import AddressOrder
from worker.announcement import Cause
from worker.dial import open_socket
from worker.endings import Ending, ending_of_dial, text_of
from worker.spec import ConnectionSpec

USER_AGENT = "feedwarden"
# A peer that reads nothing makes our answers pile up.
UNSENT_BYTES_MAX = 4 * 1024 * 1024
# A peer may put 32,000 frames into 64 KiB. What was read is parsed in slices, and after so long the
# loop has its turn: timers, signals and other sockets never wait for a flood.
SLICE_BYTES = 8 * 1024
TURN_NS = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """
    Where to dial this time: what a login or a secret made of the configuration.

    ``order`` is what the connection's dials remember of addresses.
    """

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    proxy: str | None = None
    order: AddressOrder = field(default_factory=AddressOrder, compare=False)


class WireEvents(Protocol):
    """
    What a wire tells its owner.

    ``now_ns`` is CLOCK_MONOTONIC and ``wall_ns`` CLOCK_REALTIME when the bytes arrived.
    """

    def on_socket(self, connection: socket.socket) -> None:
        """A socket is about to be connected."""

    def on_connected(self, peer: str) -> None:
        """The socket is connected; TLS and the handshake are under way."""

    def on_opened(self) -> None:
        """The handshake is done."""

    def on_message(self, is_text: bool, payload: bytes, now_ns: int, wall_ns: int) -> None:
        """A whole message came; text is valid UTF-8."""

    def on_pong(self, body: bytes, now_ns: int) -> None:
        """A PONG frame came."""

    def on_ping(self, body: bytes, now_ns: int) -> None:
        """A PING frame came; it is answered already."""

    def on_read(self) -> None:
        """All frames of one read, or of a slice of it, were told."""

    def on_closed(self, ending: Ending) -> None:
        """The socket is gone."""


class SocketWire(ABC):
    """
    One socket. Every one that was opened ends with exactly one ``on_closed``.

    Args:
        spec: The connection.
        route: Where to dial.
        events: Who is told.

    Attributes:
        written_ns: When the latest bytes were handed to the socket, CLOCK_MONOTONIC.
        read_ns: When the latest were taken from it.

    Raises:
        ValueError: If the route's URL cannot be dialled.

    """

    def __init__(self, spec: ConnectionSpec, route: Route, events: WireEvents) -> None:
        self._spec, self._route, self._events = spec, route, events
        try:
            self._uri = parse_uri(route.url)
        except InvalidURI as error:
            raise ValueError(str(error)) from None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._descriptor = -1
        self._alias: socket.socket | None = None
        self._dial: asyncio.Task[None] | None = None
        self._abort_timer: asyncio.TimerHandle | None = None
        self._writable: asyncio.Future[None] | None = None
        self._flooded = False  # the peer took nothing of what we had to say
        self._longest = 0  # bytes of the longest message that may be unsent still
        self._ended = False
        self.written_ns = self.read_ns = 0

    # What an engine adds ---------------------------------------------------------------------

    @abstractmethod
    async def _shake_hands(self, connected: socket.socket, context: ssl.SSLContext | None) -> None:
        """
        Make a transport of a connected socket and begin to speak WebSocket on it.

        Raises:
            OSError: If TLS fails.

        """

    @abstractmethod
    def _can_send(self) -> bool:
        """Return whether the session is open and nobody has begun to close it."""

    @abstractmethod
    def _send_close(self, code: int, reason: str) -> None:
        """Send a close frame."""

    @abstractmethod
    def _ending(self, error: Exception | None) -> Ending:
        """Return how it ended; ``error`` is what the transport says."""

    # Dialling --------------------------------------------------------------------------------

    def open(self, context: ssl.SSLContext | None) -> None:
        """Resolve, connect and shake hands."""
        self._dial = self._loop.create_task(self._connect(context))
        self._dial.add_done_callback(self._dialed)

    async def _connect(self, context: ssl.SSLContext | None) -> None:
        reconnect = self._spec.reconnect
        # TLS and handshake cost as much again: what needs longer to connect comes too late anyway.
        address_timeout_ns = min(reconnect.address_timeout_ns, reconnect.connect_timeout_ns // 2)
        try:
            connected = await open_socket(
                self._uri.host,
                self._uri.port,
                proxy=self._route.proxy,
                source=self._spec.source_address,
                address_timeout_s=address_timeout_ns / 1e9,
                prepare=self._events.on_socket,
                order=self._route.order,
            )
            try:
                self._events.on_connected(_peer_name(connected))
                await self._shake_hands(connected, context)
            except BaseException:
                with contextlib.suppress(OSError):  # uvloop has closed its descriptor, untold
                    connected.close()
                raise
        except (OSError, ValueError) as error:  # ValueError: a host that is no name
            self._end(ending_of_dial(error))

    def _dialed(self, dial: asyncio.Task[None]) -> None:
        # Here and not in the task: one that is cancelled before its first step never runs.
        self._dial = None
        if dial.cancelled():
            if self._transport is not None:  # all tasks of the loop were cancelled, this one too
                self._transport.abort()
            self._end(Ending(Cause.CLOSED))
        elif (error := dial.exception()) is not None:  # nobody foresaw it; nobody waits for ever
            self._loop.call_exception_handler({"message": "a dial failed", "exception": error})
            self._end(Ending(Cause.CONNECT_FAILED, error=text_of(error)))

    def _attach(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._descriptor = transport.get_extra_info("socket").fileno()
        # The same descriptor once more; it stays the transport's to close.
        self._alias = _Alias(fileno=self._descriptor)

    def set_option(self, level: int, option: int, value: int) -> None:
        """Set an option of the open socket (setsockopt(2)); nothing once it is gone."""
        if self._alias is not None:
            with contextlib.suppress(OSError):  # closed meanwhile
                self._alias.setsockopt(level, option, value)

    # Receiving and sending -------------------------------------------------------------------

    def pending_bytes(self) -> int:
        """Return how many bytes wait to be read, here and in the socket (FIONREAD, tcp(7))."""
        if self._transport is None or self._transport.is_closing():
            return 0
        raw = fcntl.ioctl(self._descriptor, termios.FIONREAD, b"\0\0\0\0")
        return self._kept_bytes() + int(struct.unpack("i", raw)[0])

    @abstractmethod
    def _kept_bytes(self) -> int:
        """Return how many bytes were read from the socket and wait on this side of it."""

    def _is_flooded(self) -> bool:
        """Give a peer up that reads nothing; return whether it was."""
        transport = self._transport
        assert transport is not None
        # Beside the longest: one long message to a peer that reads slowly is no flood.
        if transport.get_write_buffer_size() > UNSENT_BYTES_MAX + self._longest:
            self._flooded = True
            transport.abort()
        return self._flooded

    def pause_writing(self) -> None:
        """Take note that the peer does not keep up (asyncio.BaseProtocol)."""
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let those go on who wait to send (asyncio.BaseProtocol)."""
        self._longest = 0
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    async def drained(self) -> None:
        """Wait until the peer keeps up again, or the socket is gone."""
        if self._writable is not None:
            await asyncio.shield(self._writable)

    # Ending ----------------------------------------------------------------------------------

    def close(self, code: int, reason: str, *, wait: bool) -> None:
        """Send a close frame; the socket is gone within ``close_timeout``, answered or not."""
        if self._transport is None:
            self.abort()
            return
        if self._can_send():
            self._send_close(code, reason)
        if not wait:
            self._transport.close()
        self._arm_abort()

    def abort(self) -> None:
        """Drop the socket, or the dial, now."""
        if self._transport is not None:
            self._transport.abort()
        elif self._dial is not None:
            self._dial.cancel()

    def _shut(self) -> None:
        """
        Close a session that is over: the peer has closed, or broken the protocol.

        RFC 6455 section 7.1.1 leaves the first FIN to the server; a client may close at any time,
        and one that waits for a silent server holds a dead socket.
        """
        if self._transport is not None:
            self._transport.close()
            self._arm_abort()

    def _arm_abort(self) -> None:
        # Buffered output keeps a closing transport open for as long as the peer reads nothing.
        if self._abort_timer is None:
            delay_s = self._spec.reconnect.close_timeout_ns / 1e9
            self._abort_timer = self._loop.call_later(delay_s, self.abort)

    def _left_in_kernel(self, error: Exception | None) -> bytes:
        """
        Return what the peer sent before its reset and nobody has read yet.

        A write may find the reset first, and then no transport reads any more; the kernel keeps
        the receive queue until the socket is closed. Under TLS it is lost: what could decrypt it is
        gone. After this the descriptor is not ours to use.
        """
        alias, self._alias = self._alias, None
        if alias is None:
            return b""
        left = []
        is_lost = isinstance(error, OSError) and not self._flooded and not self._uri.secure
        with contextlib.suppress(OSError):
            while is_lost and (data := alias.recv(1 << 20, socket.MSG_DONTWAIT)):
                left.append(data)
        alias.detach()
        return b"".join(left)

    def eof_received(self) -> bool:
        """The peer will send no more: let the transport close (asyncio.Protocol)."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Tell how it ended (asyncio.BaseProtocol)."""
        flooded = Ending(Cause.SEND_FAILED, error="the peer reads nothing")
        self._end(flooded if self._flooded else self._ending(error))

    def _end(self, ending: Ending) -> None:
        if self._ended:
            return
        self._ended = True
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        if self._alias is not None:
            self._alias.detach()
            self._alias = None
        self._transport = None
        self.resume_writing()
        self._events.on_closed(ending)


class _Alias(socket.socket):
    """A second name of a descriptor, not its owner: collected, it leaves it open."""

    def __del__(self) -> None:
        self.detach()


def _peer_name(connected: socket.socket) -> str:
    peer: Any = ""
    with contextlib.suppress(OSError):  # it has hung up already
        peer = connected.getpeername()
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else str(peer or "")
