"""Wire: one WebSocket life on one socket, with the ``websockets`` engine.

The engine's Sans-I/O core inside an asyncio protocol: bytes in, frames out, no await, queue or
task per message. It decides nothing but how a socket ends; when to open and close one is the
session's. Every wire that was opened ends with exactly one ``on_closed``.
"""

import asyncio
import contextlib
import fcntl
import ssl
import struct
import termios
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol, cast

from websockets.client import ClientProtocol
from websockets.exceptions import (
    WebSocketException,
)
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import SEND_EOF, State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from worker.announcement import Cause
from worker.dial import open_socket
from worker.endings import Ending, ending_of, ending_of_dial
from worker.spec import ConnectionSpec

USER_AGENT = "feedwarden"
# A peer may put 128,000 frames into one read. Slices are taken one after the other, and after so
# long the loop has its turn: timers, signals and other sockets never wait for a flood.
SLICE_BYTES = 16 * 1024
TURN_NS = 20_000_000
# A peer that reads nothing makes our answers pile up.
UNSENT_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where to dial this time: what a login or a secret made of the configuration."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    proxy: str | None = None


class WireEvents(Protocol):
    """
    What a wire tells its owner.

    ``now_ns`` is CLOCK_MONOTONIC and ``wall_ns`` CLOCK_REALTIME when the bytes arrived.
    """

    def on_connected(self, peer: str) -> None:
        """TCP and TLS are done."""

    def on_opened(self) -> None:
        """The handshake is done."""

    def on_message(self, is_text: bool, payload: bytes, now_ns: int, wall_ns: int) -> None:
        """A whole message came."""

    def on_pong(self, body: bytes, now_ns: int) -> None:
        """A PONG frame came."""

    def on_ping(self, body: bytes, now_ns: int) -> None:
        """A PING frame came; it is answered already."""

    def on_closed(self, ending: Ending) -> None:
        """The socket is gone."""


class Wire(asyncio.Protocol):
    """
    One socket.

    Args:
        spec: The connection.
        route: Where to dial.
        events: Who is told.

    Attributes:
        written_ns: When the latest bytes were handed to the socket, CLOCK_MONOTONIC.

    """

    def __init__(self, spec: ConnectionSpec, route: Route, events: WireEvents) -> None:
        self._spec, self._route, self._events = spec, route, events
        self._engine = ClientProtocol(
            parse_uri(route.url),
            extensions=[ClientPerMessageDeflateFactory()] if spec.compression else None,
            subprotocols=[Subprotocol(name) for name in spec.subprotocols] or None,
            max_size=spec.limits.max_message,
        )
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._descriptor = -1
        self._dial: asyncio.Task[None] | None = None
        self._abort_timer: asyncio.TimerHandle | None = None
        self._backlog: deque[tuple[bytes, int, int]] = deque()
        self._backlog_bytes = 0
        self._fragments = bytearray()
        self._is_text = self._breached = False
        self.written_ns = 0
        self._flooded = False  # the peer took nothing of what we had to say
        self._longest = 0  # bytes of the longest write that may be unsent still
        self._writable: asyncio.Future[None] | None = None
        self._ended = False

    # Dialling --------------------------------------------------------------------------------

    def open(self, context: ssl.SSLContext | None) -> None:
        """Resolve, connect and shake hands; a task only until the socket is there."""
        self._dial = self._loop.create_task(self._connect(context))
        self._dial.add_done_callback(self._dialed)

    async def _connect(self, context: ssl.SSLContext | None) -> None:
        uri = self._engine.uri
        try:
            connected = await open_socket(
                uri.host,
                uri.port,
                proxy=self._route.proxy,
                source=self._spec.source_address,
                address_timeout_s=self._spec.reconnect.address_timeout_ns / 1e9,
            )
            try:
                await self._loop.create_connection(
                    lambda: self,
                    sock=connected,
                    ssl=context,
                    server_hostname=uri.host if context is not None else None,
                )
            except BaseException:
                connected.close()
                raise
        except (OSError, ValueError) as error:  # ValueError: a host that is no name
            self._end(ending_of_dial(error))

    def _dialed(self, dial: asyncio.Task[None]) -> None:
        # Here and not in the task: one that is cancelled before its first step never runs.
        self._dial = None
        if dial.cancelled():
            self._end(Ending(Cause.CLOSED))
        elif (error := dial.exception()) is not None:  # nobody foresaw it; nobody waits for ever
            self._loop.call_exception_handler({"message": "a dial failed", "exception": error})
            self._end(Ending(Cause.CONNECT_FAILED, error=f"{type(error).__name__}: {error}"[:200]))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the upgrade request (asyncio.Protocol)."""
        if self._ended:  # the dial was given up while its socket was on the way here
            cast("asyncio.Transport", transport).abort()
            return
        # A cast, for uvloop's transports are no subclasses of asyncio's.
        self._transport = transport = cast("asyncio.Transport", transport)
        self._descriptor = transport.get_extra_info("socket").fileno()
        request = self._engine.connect()
        request.headers["User-Agent"] = USER_AGENT
        for name, value in self._route.headers:
            with contextlib.suppress(KeyError):
                del request.headers[name]  # setting one adds a line
            request.headers[name] = value
        self._events.on_connected(_peer_name(transport))
        self._engine.send_request(request)
        self._flush()

    # Receiving -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes, answer what must be answered, hand on what they complete."""
        now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
        if len(data) <= SLICE_BYTES and not self._backlog:
            self._take(data, now_ns, wall_ns)
            return
        for start in range(0, len(data), SLICE_BYTES):
            self._backlog.append((data[start : start + SLICE_BYTES], now_ns, wall_ns))
        self._backlog_bytes += len(data)
        self._work_off()

    def _work_off(self) -> None:
        turn_ends_ns = time.monotonic_ns() + TURN_NS
        while self._backlog and not self._ended:
            if time.monotonic_ns() >= turn_ends_ns:
                if self._transport is not None:
                    self._transport.pause_reading()
                self._loop.call_soon(self._work_off)
                return
            data, now_ns, wall_ns = self._backlog.popleft()
            self._backlog_bytes -= len(data)
            self._take(data, now_ns, wall_ns)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _take(self, data: bytes, now_ns: int, wall_ns: int) -> None:
        engine = self._engine
        engine.receive_data(data)
        if engine.writes:
            self._flush()
        for event in engine.events_received():
            if self._breached:
                break  # what follows is not heard
            if isinstance(event, Frame):
                self._frame(event, now_ns, wall_ns)
            elif engine.state is State.OPEN or engine.close_sent is not None:
                self._events.on_opened()
        if engine.state is not State.OPEN:
            self._shut_if_over()

    def _frame(self, frame: Frame, now_ns: int, wall_ns: int) -> None:
        opcode = frame.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            self._is_text = opcode is Opcode.TEXT
            if frame.fin:
                self._message(bytes(frame.data), now_ns, wall_ns)
            else:
                self._fragments += frame.data
        elif opcode is Opcode.CONT:
            self._fragments += frame.data
            if frame.fin:
                payload = bytes(self._fragments)
                self._fragments.clear()
                self._message(payload, now_ns, wall_ns)
        elif opcode is Opcode.PONG:
            self._events.on_pong(bytes(frame.data), now_ns)
        elif opcode is Opcode.PING:
            self._events.on_ping(bytes(frame.data), now_ns)

    def _message(self, payload: bytes, now_ns: int, wall_ns: int) -> None:
        if self._is_text and not payload.isascii():
            try:
                payload.decode()
            except UnicodeDecodeError as error:  # RFC 6455 section 8.1; the core leaves it to us
                self._breached = True
                self._engine.parser_exc = error
                self._engine.fail(CloseCode.INVALID_DATA, "text is no UTF-8")
                self._flush()
                return
        self._events.on_message(self._is_text, payload, now_ns, wall_ns)

    def pending_bytes(self) -> int:
        """Return how many bytes wait to be read, here and in the socket (FIONREAD, tcp(7))."""
        if self._transport is None or self._transport.is_closing():
            return 0
        raw = fcntl.ioctl(self._descriptor, termios.FIONREAD, b"\0\0\0\0")
        return self._backlog_bytes + int(struct.unpack("i", raw)[0])

    # Sending ---------------------------------------------------------------------------------

    def send_text(self, payload: bytes) -> bool:
        """Send a text message; return whether the socket took it."""
        if not self._can_send():
            return False
        self._engine.send_text(payload)
        return self._flush()

    def send_binary(self, payload: bytes) -> bool:
        """Send a binary message; return whether the socket took it."""
        if not self._can_send():
            return False
        self._engine.send_binary(payload)
        return self._flush()

    def send_ping(self, body: bytes) -> bool:
        """Send a PING frame; return whether the socket took it."""
        if not self._can_send():
            return False
        self._engine.send_ping(body)
        return self._flush()

    def _can_send(self) -> bool:
        return (
            self._engine.state is State.OPEN
            and self._transport is not None
            and not self._transport.is_closing()
        )

    def _flush(self) -> bool:
        transport = self._transport
        assert transport is not None
        # Beside the longest: one long message to a peer that reads slowly is no flood.
        if transport.get_write_buffer_size() > UNSENT_BYTES_MAX + self._longest:
            self._flooded = True
            transport.abort()
            return False
        unsent = self._engine.data_to_send()
        self.written_ns = time.monotonic_ns()
        for data in unsent:
            if transport.is_closing():
                return False
            if data is not SEND_EOF:
                transport.write(data)
                self._longest = max(self._longest, len(data))
        return True

    def pause_writing(self) -> None:
        """Take note that the peer does not keep up (asyncio.Protocol)."""
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let those go on who wait to send (asyncio.Protocol)."""
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
            self._engine.send_close(code, reason)
            self._flush()
        if not wait:
            self._transport.close()
        self._arm_abort()

    def abort(self) -> None:
        """Drop the socket, or the dial, now."""
        if self._transport is not None:
            self._transport.abort()
        elif self._dial is not None:
            self._dial.cancel()

    def _shut_if_over(self) -> None:
        """Close once the peer has closed, refused the handshake, or broken the protocol."""
        engine = self._engine
        over = (
            engine.close_rcvd is not None
            or engine.parser_exc is not None
            or engine.handshake_exc is not None
        )
        if over and self._transport is not None:
            # RFC 6455 section 7.1.1 leaves the first FIN to the server; a client may close at any
            # time, and one that waits for a silent server holds a dead socket.
            self._transport.close()
            self._arm_abort()

    def _arm_abort(self) -> None:
        # Buffered output keeps a closing transport open for as long as the peer reads nothing.
        if self._abort_timer is None:
            delay_s = self._spec.reconnect.close_timeout_ns / 1e9
            self._abort_timer = self._loop.call_later(delay_s, self.abort)

    def eof_received(self) -> bool:
        """The peer will send no more: let the transport close (asyncio.Protocol)."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Hand on what came before the end, and tell how it ended (asyncio.Protocol)."""
        while self._backlog and not self._ended:
            self._take(*self._backlog.popleft())
        with contextlib.suppress(WebSocketException, EOFError):
            self._engine.receive_eof()
        flooded = Ending(Cause.SEND_FAILED, error="the peer reads nothing")
        self._end(flooded if self._flooded else ending_of(self._engine, error))

    def _end(self, ending: Ending) -> None:
        if self._ended:
            return
        self._ended = True
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self._transport = None
        self._fragments.clear()
        self._backlog.clear()
        self.resume_writing()
        self._events.on_closed(ending)


def tls_context(spec: ConnectionSpec) -> ssl.SSLContext | None:
    """
    Return the context of a ``wss`` connection: peer and name always verified.

    Raises:
        OSError: If the operator's CA file cannot be read.

    """
    if not spec.url.lower().startswith("wss:"):
        return None
    return ssl.create_default_context(cafile=spec.tls_ca)


def _peer_name(transport: asyncio.Transport) -> str:
    peer: Any = transport.get_extra_info("peername")
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else str(peer or "")
