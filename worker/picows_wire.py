"""The engine ``picows``: the fast one. It parses in C and calls back once a frame.

picows dials nothing, redirects nowhere, answers no ping and measures nothing here: it gets a
connected socket, and the clock is read where a frame comes out of it. What it leaves to its user is
done here: reserved bits, reassembly, UTF-8, close codes, and floods.
"""

import asyncio
import base64
import contextlib
import logging
import re
import socket
import ssl
from collections.abc import Callable
from time import monotonic_ns, time_ns
from typing import Any, cast

from picows import (
    WSFrame,
    WSHandshakeError,
    WSInvalidUpgradeError,
    WSListener,
    WSMsgType,
    WSProtocolError,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    ws_connect,
)

from worker.announcement import Cause
from worker.endings import Ending, ending_of_loss, ending_of_refusal, text_of
from worker.line import USER_AGENT, Line, Route, WireEvents, is_utf8
from worker.spec import ConnectionSpec

OnFrame = Callable[[WSTransport, WSFrame], None]

# picows would let one read grow to all that the socket holds. After a read of so much the loop has
# its turn: timers, signals and other sockets never wait for a flood.
READ_BYTES = 32 * 1024
TEXT, BINARY, CONTINUATION = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION
PING, PONG, CLOSE = WSMsgType.PING, WSMsgType.PONG, WSMsgType.CLOSE
NORMAL, PROTOCOL_ERROR, NO_STATUS, INVALID_DATA, TOO_BIG = 1000, 1002, 1005, 1007, 1009
# RFC 6455 section 7.4 and the registry it opened: what a peer may say.
CLOSE_CODES = frozenset((*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)))
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})(?=[ \r]|\Z)")
_RETRY_AFTER = re.compile(rb"\r\nretry-after:[ \t]*([^\r\n]*)", re.IGNORECASE)

_quiet = logging.getLogger("worker.picows")
_quiet.setLevel(logging.CRITICAL)  # how a wire ends is told to its owner, who announces it


class _Listener(WSListener):
    """
    Where picows calls.

    The callback of frames is an attribute of the instance: a function is called sooner than a
    method, and what must not be asked for each frame (is a message half there, is it over) is asked
    by putting another function in its place.
    """

    def __init__(self, on_connected: Callable[[WSTransport], None]) -> None:
        self._on_connected = on_connected

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._on_connected(transport)

    def hear(self, on_frame: OnFrame) -> None:
        self.__dict__["on_ws_frame"] = on_frame


class PicowsWire(Line, asyncio.BufferedProtocol):
    """A wire (``worker.wire.Wire``) on picows."""

    def __init__(self, spec: ConnectionSpec, route: Route, events: WireEvents) -> None:
        super().__init__(spec, route, events)
        self._socket: WSTransport | None = None
        self._listener = _Listener(self._opened)
        self._parser: asyncio.BufferedProtocol | None = None
        self._room = 0  # bytes that the read under way may bring
        self._full_reads = 0
        self._has_more = False  # the latest read was full
        self._fragments: bytearray | None = None
        self._is_text = False
        self._close_sent = False
        self._peer_close: tuple[int, str] | None = None
        self._breach: tuple[int, str] | None = None
        self._failure: Exception | None = None

    # Handshake -------------------------------------------------------------------------------

    async def _shake_hands(self, connected: socket.socket, context: ssl.SSLContext | None) -> None:
        uri = self._uri
        host = f"[{uri.host}]" if ":" in uri.host else uri.host
        scheme = "wss" if uri.secure else "ws"
        try:
            ws, listener = await ws_connect(
                self._agreed,
                f"{scheme}://{host}:{uri.port}{uri.resource_name}",
                ssl_context=context,
                websocket_handshake_timeout=None,  # the session has one
                logger_name=_quiet,
                enable_auto_pong=False,
                max_frame_size=self._spec.limits.max_message,
                extra_headers=self._headers(host),
                max_redirects=0,
                read_buffer_init_size=READ_BYTES,
                socket_factory=lambda _url: connected,
                use_aiofastnet=False,
            )
        except WSHandshakeError as error:
            self._end(_ending_of_handshake(error))
        except BaseException:
            # A handshake given up leaves its transport behind, which ends with its socket.
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
            raise
        else:
            if cast("WSListener | None", listener) is None:
                self._end(Ending(Cause.HANDSHAKE_FAILED, error="lost in the midst of it"))
            await self._over(ws)

    async def _over(self, ws: WSTransport) -> None:
        """Wait for the end, to take over what picows has to say of it."""
        try:
            await ws.wait_disconnected()
        except WSProtocolError:
            pass  # ``_found_breach`` has it
        except Exception as error:
            self._report(error)

    def _headers(self, host: str) -> list[tuple[str, str]]:
        uri = self._uri
        if uri.port != (443 if uri.secure else 80):
            host += f":{uri.port}"
        wanted = [("Host", host), ("User-Agent", USER_AGENT)]
        if uri.username is not None:
            user = base64.b64encode(f"{uri.username}:{uri.password}".encode()).decode("ascii")
            wanted.append(("Authorization", f"Basic {user}"))
        if self._spec.subprotocols:
            wanted.append(("Sec-WebSocket-Protocol", ", ".join(self._spec.subprotocols)))
        wanted += self._route.headers
        return list({name.lower(): (name, value) for name, value in wanted}.values())

    def _agreed(self, _request: WSUpgradeRequest, response: WSUpgradeResponse) -> WSListener:
        headers = response.headers
        spoken = headers.getall("Sec-WebSocket-Protocol", [])
        if len(spoken) > 1 or not set(spoken) <= set(self._spec.subprotocols):
            raise WSHandshakeError(f"unsupported subprotocol {spoken}", b"", b"", response)
        if extensions := headers.get("Sec-WebSocket-Extensions"):
            raise WSHandshakeError(f"unsupported extension {extensions}", b"", b"", response)
        return self._listener

    def _opened(self, ws: WSTransport) -> None:
        transport = ws.underlying_transport
        if self._ended:  # given up while the answer was on the way here
            transport.abort()
            return
        self._socket = ws
        self._attach(transport)
        # From now on reads pass through here. What came with the handshake is being parsed already.
        self._parser = cast("asyncio.BufferedProtocol", transport.get_protocol())
        self._parse, self._room_of = self._parser.buffer_updated, self._parser.get_buffer
        self._hear_messages = self._make_hearing()
        self._listener.hear(self._hear_messages)
        transport.set_protocol(self)
        self._loop.call_soon(self._shut_if_broken)
        try:
            self._events.on_opened()
        except Exception as error:
            self._fail(error)

    # Receiving -------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Give room for one read (asyncio.BufferedProtocol)."""
        room = cast("memoryview", self._room_of(sizehint))
        if len(room) > READ_BYTES:
            room = room[:READ_BYTES]
        self._room = len(room)
        return room

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what was read; give the loop its turn if there is more (asyncio)."""
        self._parse(nbytes)
        if nbytes == self._room and self._transport is not None:
            self._full_reads += 1
            self._has_more = True
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)
        ws = self._socket
        if ws is not None and ws.is_close_frame_sent:
            self._shut_if_broken()

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        # What TLS holds is read in the turn after this.
        self._loop.call_soon(self._has_read_on, self._full_reads)

    def _has_read_on(self, full_reads: int) -> None:
        if full_reads == self._full_reads:
            self._has_more = False

    def _kept_bytes(self) -> int:
        """Return 1 if some were left, by TLS or otherwise: how many nobody tells."""
        return int(self._has_more)

    def _make_hearing(self) -> OnFrame:
        """Return the callback of frames between messages: the hot path."""
        deliver, other, fail = self._events.on_message, self._hear, self._fail

        def on_frame(_ws: WSTransport, frame: WSFrame) -> None:
            now_ns = monotonic_ns()
            try:
                kind = frame.msg_type
                if frame.fin and not (frame.rsv1 or frame.rsv2 or frame.rsv3):
                    if kind is TEXT:
                        payload = frame.get_payload_as_bytes()
                        if payload.isascii() or is_utf8(payload):
                            deliver(True, payload, now_ns, time_ns())
                            return
                    elif kind is BINARY:
                        deliver(False, frame.get_payload_as_bytes(), now_ns, time_ns())
                        return
                other(kind, frame, now_ns)
            except Exception as error:
                fail(error)

        return on_frame

    def _hear_rest(self, _ws: WSTransport, frame: WSFrame) -> None:
        """Take a frame while a message is half there."""
        now_ns = monotonic_ns()
        try:
            self._hear(frame.msg_type, frame, now_ns)
        except Exception as error:
            self._fail(error)

    def _hear(self, kind: WSMsgType, frame: WSFrame, now_ns: int) -> None:
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._break_off(PROTOCOL_ERROR, "reserved bits must be 0")
        elif kind is PING:
            self._answer(frame.get_payload_as_bytes(), now_ns)
        elif kind is PONG:
            self._events.on_pong(frame.get_payload_as_bytes(), now_ns)
        elif kind is CLOSE:
            self._hear_close(frame.get_payload_as_bytes())
        elif (kind is CONTINUATION) is (self._fragments is None):
            was = "nothing to continue" if kind is CONTINUATION else "a message is unfinished"
            self._break_off(PROTOCOL_ERROR, was)
        else:
            self._hear_fragment(kind, frame, now_ns)

    def _hear_fragment(self, kind: WSMsgType, frame: WSFrame, now_ns: int) -> None:
        if self._fragments is None:
            self._fragments, self._is_text = bytearray(), kind is TEXT
            self._listener.hear(self._hear_rest)
        size, limit = len(self._fragments) + frame.payload_size, self._spec.limits.max_message
        if size > limit:
            self._break_off(TOO_BIG, f"over {limit} bytes in fragments")
            return
        self._fragments += frame.get_payload_as_memoryview()
        if not frame.fin:
            return
        payload, self._fragments = bytes(self._fragments), None
        self._listener.hear(self._hear_messages)
        if self._is_text and not is_utf8(payload):
            self._break_off(INVALID_DATA, "text is not UTF-8")
        else:
            self._events.on_message(self._is_text, payload, now_ns, time_ns())

    def _answer(self, body: bytes, now_ns: int) -> None:
        ws = self._socket
        if ws is not None and not self._is_flooded():
            self.written_ns = monotonic_ns()
            ws.send_pong(body)
        self._events.on_ping(body, now_ns)

    def _hear_close(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2], "big") if payload else NO_STATUS
        if payload and code not in CLOSE_CODES:
            self._break_off(PROTOCOL_ERROR, f"invalid close code {code}")
            return
        self._listener.hear(_ignore)
        self._peer_close = code, payload[2:].decode()
        self._send_close(code if payload else NORMAL, self._peer_close[1])
        self._shut()

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
        ws = self._socket
        if ws is None or not self._can_send() or self._is_flooded():
            return False
        self.written_ns = monotonic_ns()
        ws.send(kind, payload)
        return True

    def _can_send(self) -> bool:
        ws, transport = self._socket, self._transport
        return (
            ws is not None
            and not ws.is_close_frame_sent
            and transport is not None
            and not transport.is_closing()
        )

    # Ending ----------------------------------------------------------------------------------

    def _send_close(self, code: int, reason: str) -> None:
        ws = self._socket
        if ws is not None and not ws.is_close_frame_sent:
            self._close_sent = True
            self.written_ns = monotonic_ns()
            ws.send_close(cast("Any", code), reason.encode())

    def _break_off(self, code: int, why: str) -> None:
        """End a session whose peer has broken the protocol."""
        self._listener.hear(_ignore)
        self._send_close(code, why)
        self._breach = self._found_breach() or (code, why)
        self._shut()

    def _found_breach(self) -> tuple[int, str] | None:
        """Return what picows, or we, have closed the session for."""
        ws = self._socket
        if self._breach is None and not self._close_sent and ws is not None:
            said = ws.close_handshake.sent if ws.is_close_frame_sent else None
            if said is not None:
                self._breach = int(cast("Any", said.code)), said.reason
        return self._breach

    def _shut_if_broken(self) -> None:
        if self._found_breach() is not None:
            self._listener.hear(_ignore)
            self._shut()

    def _fail(self, error: Exception) -> None:
        """Drop a socket whose owner does not bear what it is told."""
        self._listener.hear(_ignore)
        self._failure = error
        self._report(error)
        self.abort()

    def _report(self, error: Exception) -> None:
        context = {"message": "a WebSocket's callback failed", "exception": error}
        self._loop.call_exception_handler(context)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell how it ended (asyncio.BaseProtocol)."""
        if self._parser is not None:
            self._parser.connection_lost(error)
        super().connection_lost(error)

    def _end(self, ending: Ending) -> None:
        self._listener.hear(_ignore)
        self._fragments = None
        super()._end(ending)

    def _ending(self, error: Exception | None) -> Ending:
        if self._peer_close is not None:
            return Ending(Cause.PEER_CLOSED, *self._peer_close)
        if breach := self._found_breach():
            cause = Cause.OVERSIZE if breach[0] == TOO_BIG else Cause.PROTOCOL_ERROR
            return Ending(cause, error=breach[1])
        return ending_of_loss(self._failure or error, close_sent=self._close_sent)


def _ignore(_ws: WSTransport, _frame: WSFrame) -> None:
    """Take a frame that came when all was over."""


def _ending_of_handshake(error: WSHandshakeError) -> Ending:
    # From the bytes, for picows knows no status that Python's http does not (520, say).
    head = error.raw_header or b""
    if (status := _STATUS.match(head)) and status[1] != b"101":
        wait = _RETRY_AFTER.search(head)
        retry_after = wait[1].decode("latin-1") if wait else None
        return ending_of_refusal(int(status[1]), retry_after, error)
    text = text_of(error)
    if isinstance(error, WSInvalidUpgradeError):
        text += '; engine = "websockets" reads such headers more freely'
    return Ending(Cause.HANDSHAKE_FAILED, error=text)
