"""The engine ``websockets``: its Sans-I/O core inside an asyncio protocol.

Bytes in, frames out, no await, queue or task per message.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections import deque
from typing import cast

from websockets.client import ClientProtocol
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    PayloadTooBig,
    WebSocketException,
)
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import SEND_EOF, State
from websockets.typing import Subprotocol

from worker.announcement import Cause
from worker.deflate import DeflateFactory
from worker.endings import HEAD_END, Ending, ending_of_loss, ending_of_refusal, text_of
from worker.socket_wire import SLICE_BYTES, TURN_NS, USER_AGENT, Route, SocketWire, WireEvents
from worker.spec import ConnectionSpec
from worker.utf8 import is_utf8

HEAD_BYTES_MAX = 64 * 1024


class _Core(ClientProtocol):
    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            # A close may come amid the fragments of a message (RFC 6455 section 5.4); websockets
            # takes that for a breach.
            self.current_size = None
        super().recv_frame(frame)


class WebsocketsWire(SocketWire, asyncio.Protocol):
    """A wire (``worker.wire.Wire``) on websockets."""

    def __init__(self, spec: ConnectionSpec, route: Route, events: WireEvents) -> None:
        super().__init__(spec, route, events)
        self._engine = _Core(
            self._uri,
            extensions=[DeflateFactory()] if spec.compression else None,
            subprotocols=[Subprotocol(name) for name in spec.subprotocols] or None,
            max_size=spec.limits.max_message,
        )
        self._backlog: deque[tuple[bytes, int, int]] = deque()
        self._backlog_bytes = 0
        self._connected: socket.socket | None = None
        self._is_lost = False  # the socket is gone, the backlog not worked off
        self._loss: Exception | None = None
        self._fragments = bytearray()
        self._is_text = False
        self._not_utf8 = False
        self._head: bytearray | None = bytearray()  # of the answer to our handshake, so far
        self._refusal: Ending | None = None

    async def _shake_hands(self, connected: socket.socket, context: ssl.SSLContext | None) -> None:
        self._connected = connected
        await self._loop.create_connection(
            lambda: self,
            sock=connected,
            ssl=context,
            server_hostname=self._uri.host if context is not None else None,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the upgrade request (asyncio.Protocol)."""
        # A cast, for uvloop's transports are no subclasses of asyncio's.
        transport = cast("asyncio.Transport", transport)
        if self._ended:  # the dial was given up while its socket was on the way here
            transport.abort()
            return
        self._attach(transport)
        request = self._engine.connect()
        request.headers["User-Agent"] = USER_AGENT
        for name, value in self._route.headers:
            with contextlib.suppress(KeyError):
                del request.headers[name]  # setting one adds a line
            request.headers[name] = value
        self._engine.send_request(request)
        self._flush()

    # Receiving -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes, answer what must be answered, hand on what they complete."""
        now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
        self.read_ns = now_ns
        if len(data) <= SLICE_BYTES and not self._backlog:
            self._take(data, now_ns, wall_ns)
            return
        self._keep(data, now_ns, wall_ns)
        self._work_off()

    def _keep(self, data: bytes, now_ns: int, wall_ns: int) -> None:
        for start in range(0, len(data), SLICE_BYTES):
            self._backlog.append((data[start : start + SLICE_BYTES], now_ns, wall_ns))
        self._backlog_bytes += len(data)

    def _work_off(self) -> None:
        turn_ends_ns = time.monotonic_ns() + TURN_NS
        while self._backlog and not self._ended:
            if time.monotonic_ns() >= turn_ends_ns:
                if self._transport is not None and not self._transport.is_closing():
                    self._transport.pause_reading()
                self._loop.call_soon(self._work_on)
                return
            data, now_ns, wall_ns = self._backlog.popleft()
            self._backlog_bytes -= len(data)
            self._take(data, now_ns, wall_ns)
        if self._ended:
            return
        if self._is_lost:
            self._over()
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _work_on(self) -> None:
        """Go on in a turn of its own, where no transport hears of an owner that raises."""
        try:
            self._work_off()
        except Exception as error:
            self._loop.call_exception_handler(
                {"message": "a WebSocket's callback failed", "exception": error}
            )
            self._backlog.clear()
            self.abort()
            if self._is_lost:
                super().connection_lost(error)

    def _take(self, data: bytes, now_ns: int, wall_ns: int) -> None:
        engine = self._engine
        if self._head is not None and self._is_refused(data):
            return
        engine.receive_data(data)
        if engine.writes:
            self._flush()
        for event in engine.events_received():
            if isinstance(event, Frame):
                self._frame(event, now_ns, wall_ns)
            elif engine.state is State.OPEN or engine.close_sent is not None:
                self._events.on_opened()
        self._events.on_read()
        if engine.state is not State.OPEN:
            self._shut_if_over()

    def _is_refused(self, data: bytes) -> bool:
        """Look whether the answer is a refusal: websockets would wait for the end of its body."""
        assert self._head is not None
        self._head += data
        end = self._head.find(HEAD_END)
        if end >= 0:
            self._refusal = ending_of_refusal(bytes(self._head[:end]))
        if end >= 0 or len(self._head) > HEAD_BYTES_MAX:
            self._head = None
        if self._refusal is not None:
            self._shut()
        return self._refusal is not None

    def _frame(self, frame: Frame, now_ns: int, wall_ns: int) -> None:
        opcode = frame.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            is_text = opcode is Opcode.TEXT
            if frame.fin:
                self._message(is_text, bytes(frame.data), now_ns, wall_ns)
            else:
                self._is_text = is_text
                self._fragments += frame.data
        elif opcode is Opcode.CONT:
            self._fragments += frame.data
            if frame.fin:
                payload = bytes(self._fragments)
                self._fragments.clear()
                self._message(self._is_text, payload, now_ns, wall_ns)
        elif opcode is Opcode.PONG:
            self._events.on_pong(bytes(frame.data), now_ns)
        elif opcode is Opcode.PING:
            self._events.on_ping(bytes(frame.data), now_ns)

    def _message(self, is_text: bool, payload: bytes, now_ns: int, wall_ns: int) -> None:
        if self._not_utf8:  # what else came with it
            return
        if is_text and not payload.isascii() and not is_utf8(payload):
            self._not_utf8 = True
            self._engine.fail(CloseCode.INVALID_DATA, "text is not UTF-8")
            self._flush()
            return
        self._events.on_message(is_text, payload, now_ns, wall_ns)

    def _kept_bytes(self) -> int:
        return self._backlog_bytes

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
        if transport is None or self._is_flooded():
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

    # Ending ----------------------------------------------------------------------------------

    def _send_close(self, code: int, reason: str) -> None:
        self._engine.send_close(code, reason)
        self._flush()

    def _shut_if_over(self) -> None:
        engine = self._engine
        if (
            self._not_utf8
            or engine.close_rcvd is not None
            or engine.parser_exc is not None
            or engine.handshake_exc is not None
        ):
            self._shut()

    def connection_lost(self, error: Exception | None) -> None:
        """Hand on what came before the end, and tell how it ended (asyncio.Protocol)."""
        if error is not None and not isinstance(error, OSError):  # its owner raised
            self._backlog.clear()
        self._keep(self._left_in_kernel(error), time.monotonic_ns(), time.time_ns())
        self._is_lost, self._loss = True, error
        self._work_off()
        # In the next turn its descriptor is closed, but uvloop does not tell a socket whose
        # transport was lost at its birth: that one would close another's later on.
        if self._connected is not None:
            self._loop.call_soon(self._connected.detach)

    def _over(self) -> None:
        with contextlib.suppress(WebSocketException, EOFError):
            self._engine.receive_eof()
        super().connection_lost(self._loss)

    def _end(self, ending: Ending) -> None:
        self._fragments.clear()
        self._backlog.clear()
        super()._end(ending)

    def _ending(self, error: Exception | None) -> Ending:
        engine = self._engine
        if self._refusal is not None:
            return self._refusal
        refusal = engine.handshake_exc
        if isinstance(refusal, InvalidHandshake):
            # The header that cannot be read, say, is the cause of "no valid HTTP response".
            return Ending(Cause.HANDSHAKE_FAILED, error=text_of(refusal.__cause__ or refusal))
        breach = engine.parser_exc
        if isinstance(breach, PayloadTooBig):
            return Ending(Cause.OVERSIZE, error=text_of(breach))
        if self._not_utf8:
            return Ending(Cause.PROTOCOL_ERROR, error="text is not UTF-8")
        broken = breach is not None and not isinstance(breach, EOFError | ConnectionClosed)
        if breach is not None and broken and engine.close_sent is not None:
            return Ending(Cause.PROTOCOL_ERROR, error=text_of(breach))
        if engine.close_rcvd is not None:
            return Ending(Cause.PEER_CLOSED, int(engine.close_rcvd.code), engine.close_rcvd.reason)
        return ending_of_loss(error, close_sent=engine.close_sent is not None)
