"""The engine ``picows``: the fast one. It parses in C and calls back once a frame.

picows dials nothing, redirects nowhere, answers no ping and measures nothing here: it gets a
connected socket, and the clock is read where a frame comes out of it (``picows_listener``).
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from time import monotonic_ns
from typing import Any, cast

from picows import (
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSProtocolError,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    ws_connect,
)

from worker.announcement import Cause
from worker.close_codes import NO_STATUS, NORMAL, TOO_BIG
from worker.endings import Ending, ending_of_loss
from worker.picows_handshake import (
    ConnectedSocket,
    check_agreed,
    ending_of_handshake,
    request_headers,
    url_of,
)
from worker.picows_listener import BINARY, PING, TEXT, Listener
from worker.socket_wire import SLICE_BYTES, TURN_NS, Route, SocketWire, WireEvents
from worker.spec import ConnectionSpec

# picows would let one read grow to all that the socket holds. After a read of so much the loop has
# its turn. The first read, which comes with the handshake and is parsed whole, brings less; then
# picows doubles its buffer.
READ_BYTES = 64 * 1024
FIRST_READ_BYTES = 16 * 1024
# A slice grows while the latest took less time: frames of some length are then parsed where they
# were read, and sent together. A flood of tiny ones costs one long slice, and short ones after it.
SLICE_NS = 2_000_000

_quiet = logging.getLogger("worker.picows")
_quiet.setLevel(logging.CRITICAL)  # how a wire ends is told to its owner, who announces it


class PicowsWire(SocketWire, asyncio.BufferedProtocol):
    """A wire (``worker.wire.Wire``) on picows."""

    def __init__(self, spec: ConnectionSpec, route: Route, events: WireEvents) -> None:
        super().__init__(spec, route, events)
        self._listener = Listener(self, events, spec.limits.max_message)
        self._connected: socket.socket | None = None
        self._ws: WSTransport | None = None
        self._parser: asyncio.BufferedProtocol | None = None
        self._room = memoryview(b"")  # for the read under way
        self._rest = memoryview(b"")  # read, and not parsed yet
        self._lost: Exception | None = None  # what the socket was lost by, amid the rest
        self._slice_bytes = SLICE_BYTES  # of the next slice, by what the latest took
        self._full_reads = 0
        self._has_more = False  # the latest read was full
        self._given_up = False
        self._close_sent = False
        self._peer_close: tuple[int, str] | None = None
        self._breach: tuple[int, str] | None = None
        self._failure: Exception | None = None

    # Handshake -------------------------------------------------------------------------------

    async def _shake_hands(self, connected: socket.socket, context: ssl.SSLContext | None) -> None:
        self._connected = connected = ConnectedSocket(fileno=connected.detach())
        try:
            ws, listener = await ws_connect(
                self._agreed,
                url_of(self._uri),
                ssl_context=context,
                websocket_handshake_timeout=None,  # the session has one
                logger_name=_quiet,
                enable_auto_pong=False,
                max_frame_size=self._spec.limits.max_message,
                extra_headers=request_headers(self._uri, self._spec, self._route),
                max_redirects=0,
                read_buffer_init_size=FIRST_READ_BYTES,
                socket_factory=lambda _url: connected,
                use_aiofastnet=False,
            )
        except WSHandshakeError as error:
            self._end(ending_of_handshake(error))
            self.abort()
        except Exception:
            connected.close()
            raise
        except asyncio.CancelledError:  # by the end of the loop, not by ``abort``
            self.abort()
            raise
        else:
            if cast("WSListener | None", listener) is None:
                self._end(Ending(Cause.HANDSHAKE_FAILED, error="lost in the midst of it"))
            await self._over(ws)
            # Its descriptor is closed, but uvloop does not tell a socket whose transport was lost
            # at its birth: that one would close another's later on.
            connected.detach()

    def _agreed(self, _request: WSUpgradeRequest, response: WSUpgradeResponse) -> WSListener:
        if self._given_up:
            raise WSHandshakeError("given up", b"", b"", response)
        check_agreed(self._spec, response)
        return self._listener

    async def _over(self, ws: WSTransport) -> None:
        """Wait for the end, to take over what picows has to say of it."""
        try:
            await ws.wait_disconnected()
        except WSProtocolError:
            pass  # ``_found_breach`` has it
        except Exception as error:
            self._report(error)

    def opened(self, ws: WSTransport) -> None:
        """The handshake is done (picows_listener.SessionEvents)."""
        transport = ws.underlying_transport
        self._ws = ws
        self._attach(transport)
        self.read_ns = monotonic_ns()
        # From now on reads pass through here. What came with the handshake is being parsed already.
        self._parser = cast("asyncio.BufferedProtocol", transport.get_protocol())
        self._parse, self._room_of = self._parser.buffer_updated, self._parser.get_buffer
        transport.set_protocol(self)
        self._loop.call_soon(self._shut_if_broken)
        self._loop.call_soon(self._events.on_read)
        self._events.on_opened()

    # Receiving -------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Give room for one read (asyncio.BufferedProtocol)."""
        self.read_ns = monotonic_ns()
        room = cast("memoryview", self._room_of(sizehint))
        if len(room) > READ_BYTES:
            room = room[:READ_BYTES]
        self._room = room
        return room

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what was read; give the loop its turn if there is more (asyncio)."""
        is_full = nbytes == len(self._room)
        if nbytes > self._slice_bytes:
            # Copied, for picows parses all that it is given and moves what is left in its buffer.
            self._rest = memoryview(bytes(self._room[:nbytes]))
            self._parse_rest()
        elif nbytes >= SLICE_BYTES:
            self._parse_slice(nbytes)
        else:
            self._parse(nbytes)
            self._events.on_read()
        if (is_full or self._rest) and self._transport is not None:
            self._full_reads += 1
            self._has_more = True
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)
        ws = self._ws
        if ws is not None and ws.is_close_frame_sent:
            self._shut_if_broken()

    def _parse_rest(self) -> None:
        """Parse slices of what was read, for as long as a turn lasts."""
        ends_ns = monotonic_ns() + TURN_NS
        while self._rest and not self._ended:
            room = cast("memoryview", self._room_of(-1))
            count = min(len(room), len(self._rest), self._slice_bytes)
            room[:count] = self._rest[:count]
            self._rest = self._rest[count:]
            if self._parse_slice(count) >= ends_ns:
                return

    def _parse_slice(self, count: int) -> int:
        """Parse the first ``count`` bytes of the room; return when that was done, monotonic."""
        began_ns = monotonic_ns()
        self._parse(count)
        self._events.on_read()
        ended_ns = monotonic_ns()
        if count >= SLICE_BYTES:  # less tells little of the frames to come
            in_time = count * SLICE_NS // (ended_ns - began_ns + 1)
            self._slice_bytes = min(max(in_time, SLICE_BYTES), READ_BYTES)
        return ended_ns

    def _read_on(self) -> None:
        if self._ended:
            return
        if self._rest:
            self._parse_rest()
            self._shut_if_broken()
        if self._rest:
            self._loop.call_soon(self._read_on)
            return
        if self._lost is not None:
            super().connection_lost(self._lost)
            return
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        # What TLS holds is read in the turn after this.
        self._loop.call_soon(self._has_read_on, self._full_reads)

    def _has_read_on(self, full_reads: int) -> None:
        if full_reads == self._full_reads:
            self._has_more = False

    def _kept_bytes(self) -> int:
        """Return what is not parsed yet, and 1 if TLS may hold some: how many nobody tells."""
        return len(self._rest) + int(self._has_more)

    def ping(self, body: bytes, now_ns: int) -> None:
        """A PING frame came: answer it (picows_listener.SessionEvents)."""
        ws = self._ws
        if ws is not None and self._can_send() and not self._is_flooded():
            self.written_ns = monotonic_ns()
            ws.send_pong(body)
        self._events.on_ping(body, now_ns)

    # Sending ---------------------------------------------------------------------------------

    def send_text(self, payload: bytes) -> bool:
        """Send a text message; return whether the socket took it."""
        return self._send(TEXT, payload)

    def send_binary(self, payload: bytes) -> bool:
        """Send a binary message; return whether the socket took it."""
        return self._send(BINARY, payload)

    def send_ping(self, body: bytes) -> bool:
        """Send a PING frame; return whether the socket took it."""
        return self._send(PING, body)

    def _send(self, kind: WSMsgType, payload: bytes) -> bool:
        ws = self._ws
        if ws is None or not self._can_send() or self._is_flooded():
            return False
        self.written_ns = monotonic_ns()
        ws.send(kind, payload)
        self._longest = max(self._longest, len(payload))
        return True

    def _can_send(self) -> bool:
        ws, transport = self._ws, self._transport
        return (
            ws is not None
            and not ws.is_close_frame_sent
            and transport is not None
            and not transport.is_closing()
        )

    # Ending ----------------------------------------------------------------------------------

    def abort(self) -> None:
        """Drop the socket, or the dial, now."""
        if self._transport is not None or self._connected is None:
            super().abort()
            return
        # picows keeps its transport to itself until hands are shaken, and forgets it if it is
        # cancelled. It ends with its socket.
        self._given_up = True
        with contextlib.suppress(OSError):
            self._connected.shutdown(socket.SHUT_RDWR)

    def closed(self, code: int, reason: str) -> None:
        """The peer closes (picows_listener.SessionEvents)."""
        self._listener.mute()
        self._peer_close = code, reason
        self._send_close(NORMAL if code == NO_STATUS else code, reason)
        self._shut()

    def broken(self, code: int, why: str) -> None:
        """The peer has broken the protocol (picows_listener.SessionEvents)."""
        self._listener.mute()
        self._send_close(code, why)
        self._breach = self._found_breach() or (code, why)
        self._shut()

    def failed(self, error: Exception) -> None:
        """Drop a socket whose owner does not bear what it is told."""
        self._listener.mute()
        self._failure = error
        self._report(error)
        self.abort()

    def _send_close(self, code: int, reason: str) -> None:
        ws = self._ws
        if ws is not None and not ws.is_close_frame_sent:
            self._close_sent = True
            self.written_ns = monotonic_ns()
            ws.send_close(cast("Any", code), reason.encode())

    def _found_breach(self) -> tuple[int, str] | None:
        """Return what picows, or we, have closed the session for."""
        ws = self._ws
        if self._breach is None and not self._close_sent and ws is not None:
            said = ws.close_handshake.sent if ws.is_close_frame_sent else None
            if said is not None:
                self._breach = int(cast("Any", said.code)), said.reason
        return self._breach

    def _shut_if_broken(self) -> None:
        if self._found_breach() is not None:
            self._listener.mute()
            self._shut()

    def _report(self, error: Exception) -> None:
        context = {"message": "a WebSocket's callback failed", "exception": error}
        self._loop.call_exception_handler(context)

    def connection_lost(self, error: Exception | None) -> None:
        """Hand on what came before the end, and tell how it ended (asyncio.BaseProtocol)."""
        if self._parser is not None:
            self._parser.connection_lost(error)  # from now on it sends nothing
        left = self._left_in_kernel(error)
        if error is None or not (left or self._rest):
            super().connection_lost(error)
            return
        self._lost = error
        self._rest = memoryview(bytes(self._rest) + left)
        self._loop.call_soon(self._read_on)

    def _end(self, ending: Ending) -> None:
        self._listener.mute()
        self._rest = memoryview(b"")
        super()._end(ending)

    def _ending(self, error: Exception | None) -> Ending:
        if self._peer_close is not None:
            return Ending(Cause.PEER_CLOSED, *self._peer_close)
        if breach := self._found_breach():
            cause = Cause.OVERSIZE if breach[0] == TOO_BIG else Cause.PROTOCOL_ERROR
            return Ending(cause, error=breach[1])
        return ending_of_loss(self._failure or error, close_sent=self._close_sent)
