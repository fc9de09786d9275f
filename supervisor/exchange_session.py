"""One client of the simulated exchange: handshake, answers and data, and every fault it may suffer.

On the Sans-I/O core of ``websockets``, so that every byte, pong and reset is ours to spoil. What is
said is in ``exchange_dialects``, the faults are in ``exchange_faults``.
"""

import asyncio
import contextlib
import time
from typing import Any, Protocol, cast
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol

from supervisor.exchange_dialects import EXCHANGES, Exchange, Message
from supervisor.exchange_faults import Fault, FaultBoard, FaultKind, reset, spoil
from supervisor.exchange_feed import TICK_S, Feed, Market
from supervisor.exchange_pings import Pings
from supervisor.exchange_shared import SharedFeed
from supervisor.exchange_spec import SimulatorSpec

COMMANDS = "/-/"
HALF_OPEN_CHECK_S = 0.1


class Server(Protocol):
    """What a session needs of the exchange."""

    @property
    def spec(self) -> SimulatorSpec:
        """What the exchange does."""

    @property
    def faults(self) -> FaultBoard:
        """Those that last."""

    def enter(self, session: "Session") -> int:
        """Take a session that is open; return its number, from 1."""

    def leave(self, session: "Session") -> None:
        """Forget a session whose socket is gone."""

    def market(self, session: "Session") -> SharedFeed:
        """Return the market that the sessions of an exchange share."""

    def leave_out(self, session: "Session") -> None:
        """Count a message of a shared market that a session does not get."""

    def command(self, target: str) -> tuple[int, Any]:
        """Carry out an HTTP command; return status and document."""


class Engine(ServerProtocol):
    """The protocol core, except that pongs are handed out instead of sent."""

    def __init__(self) -> None:
        super().__init__(max_size=1 << 20)
        self.pongs: list[bytes] = []

    def send_frame(self, frame: Frame) -> None:
        """Keep pongs back: whether, when and how they leave is the simulator's."""
        if frame.opcode is Opcode.PONG:
            self.pongs.append(bytes(frame.data))
        else:
            super().send_frame(frame)


class Session(asyncio.Protocol):
    """
    One client.

    Args:
        server: Whose.

    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._engine = Engine()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._exchange: Exchange | None = None
        self._market = Market(server.spec.seed)
        self._is_paused = False
        self._feed = Feed(server.spec.rate)
        self._shared: SharedFeed | None = None
        self._given = 0  # messages of a shared market
        self._our_pings: Pings | None = None
        self.path, self.tag = "", ""
        self.number = 0
        self.received = self.pings = 0
        self._opened = time.monotonic()

    def describe(self) -> dict[str, Any]:
        """Return the session's line of ``/-/sessions``."""
        return {
            "id": self.number,
            "path": self.path,
            "tag": self.tag,
            "open_s": round(time.monotonic() - self._opened, 3),
            "sent": self._feed.sent + self._given,
            "received": self.received,
            "pings": self.pings,
            "skipped": self._feed.skipped,
        }

    # The socket ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client dialled (asyncio.Protocol)."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is gone (asyncio.Protocol)."""
        self._server.leave(self)
        if self._shared is not None:
            self._shared.remove(self)
        self._transport = None
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def pause_writing(self) -> None:
        """The client reads too slowly (asyncio.Protocol)."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """It has caught up (asyncio.Protocol)."""
        self._is_paused = False

    def data_received(self, data: bytes) -> None:
        """Bytes of the client (asyncio.Protocol)."""
        if self._suffers(FaultKind.HALF_OPEN):
            return
        with contextlib.suppress(WebSocketException):
            self._engine.receive_data(data)
        for event in self._engine.events_received():
            if isinstance(event, Request):
                self._request(event)
            elif isinstance(event, Frame):
                self._frame(event)
        self._answer_pings()
        self._flush()

    def eof_received(self) -> bool:
        """The client will send no more (asyncio.Protocol)."""
        with contextlib.suppress(WebSocketException, EOFError):
            self._engine.receive_eof()
        return False

    def _flush(self) -> None:
        for data in self._engine.data_to_send():
            if self._transport is None or self._transport.is_closing():
                return
            if data is SEND_EOF:
                self._transport.close()
            else:
                self._transport.write(data)

    def _later(self, delay_s: float, callback: Any, *arguments: Any) -> None:
        def run() -> None:
            self._timers.discard(timer)
            if self._transport is not None:
                callback(*arguments)
                self._flush()

        timer = self._loop.call_later(delay_s, run)
        self._timers.add(timer)

    # Handshake -------------------------------------------------------------------------------

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.path)
        if parts.path.startswith(COMMANDS):
            status, document = self._server.command(request.path)
            text = msgspec.json.encode(document).decode() + "\n"
            self._engine.send_response(self._engine.reject(status, text))
            return
        self.path = parts.path
        self.tag = parse_qs(parts.query).get("tag", [""])[-1]
        if self._suffers(FaultKind.FREEZE):
            return
        refusal = self._fault(FaultKind.REFUSE)
        if refusal is not None:
            response = self._engine.reject(int(refusal.number("status", 503)), "refused\n")
            if "retry_after" in refusal.options:
                response.headers["Retry-After"] = refusal.options["retry_after"]
            self._engine.send_response(response)
            return
        exchange = EXCHANGES.get(self.path)
        if exchange is None:
            known = ", ".join(EXCHANGES)
            self._engine.send_response(self._engine.reject(404, f"exchanges: {known}\n"))
            return
        self._engine.send_response(self._engine.accept(request))
        if self._engine.state is State.OPEN:
            self._open(exchange())

    def _open(self, exchange: Exchange) -> None:
        self.number = self._server.enter(self)
        self._exchange = exchange
        self._opened = time.monotonic()
        for message in exchange.greeting():
            self._send(message)
        self._our_pings = Pings(exchange, self._engine, self._send, self._later)
        if exchange.heartbeat_s:
            self._later(exchange.heartbeat_s, self._heartbeat, exchange)
        spec = self._server.spec
        if spec.max_age_s:
            self._later(spec.max_age_s, self._grow_old)
            if spec.notice_s:
                self._later(max(0.0, spec.max_age_s - spec.notice_s), self._notice)

    # What the client says --------------------------------------------------------------------

    def _frame(self, frame: Frame) -> None:
        exchange, our_pings = self._exchange, self._our_pings
        if exchange is None or our_pings is None:
            return
        if frame.opcode is Opcode.PONG:
            our_pings.note_pong_frame()
        if frame.opcode is not Opcode.TEXT:
            return
        self.received += 1
        text = bytes(frame.data).decode("utf-8", "replace")
        if our_pings.takes(text):
            return
        answer = exchange.pong(text)
        if answer is not None:
            self.pings += 1
            self._answer(answer)
            return
        acknowledgements = exchange.acknowledge(text)
        if acknowledgements is not None:
            for message in acknowledgements:
                self._send(message)
            self._begin_data()

    def _begin_data(self) -> None:
        if self._server.spec.shared:
            if self._shared is None:
                self._shared = self._server.market(self)
                self._shared.add(self)
        elif not self._feed.has_begun:
            self._feed.begin(time.monotonic())
            self._later(TICK_S, self._flow)

    def _answer_pings(self) -> None:
        pongs, self._engine.pongs = self._engine.pongs, []
        for body in pongs:
            self.pings += 1
            self._answer(body)

    def _answer(self, pong: Message | bytes) -> None:
        """Answer a ping as well or badly as the faults of the hour say."""
        if self._suffers(FaultKind.MUTE_PONGS):
            return
        delay_s = self._server.spec.answer_delay_s
        late = self._fault(FaultKind.LATE_PONGS)
        if late is not None:
            delay_s += late.number("delay", 1.0)
        if self._suffers(FaultKind.WRONG_PONGS):
            pong = b"wrong" if isinstance(pong, bytes) else Message(b'{"not":"an answer"}')
        times = 2 if self._suffers(FaultKind.DOUBLE_PONGS) else 1
        for _ in range(times):
            if delay_s:
                self._later(delay_s, self._send_pong, pong)
            else:
                self._send_pong(pong)

    def _send_pong(self, pong: Message | bytes) -> None:
        if isinstance(pong, Message):
            self._send(pong)
        elif self._engine.state is State.OPEN:
            ServerProtocol.send_frame(self._engine, Frame(Opcode.PONG, pong))

    # What the server says --------------------------------------------------------------------

    def _send(self, message: Message) -> None:
        if self._engine.state is not State.OPEN or self._suffers(FaultKind.HALF_OPEN):
            return
        send = self._engine.send_text if message.is_text else self._engine.send_binary
        if self._suffers(FaultKind.FRAGMENTS) and len(message.payload) > 1:
            middle = len(message.payload) // 2
            send(message.payload[:middle], fin=False)
            self._engine.send_ping(b"between")
            self._engine.send_continuation(message.payload[middle:], fin=True)
        else:
            send(message.payload)

    def give(self, message: Message) -> None:
        """Send a data message of the shared market (exchange_shared.Receiver)."""
        faulty = self._suffers(FaultKind.MUTE_DATA) or self._suffers(FaultKind.HALF_OPEN)
        if self._is_paused or faulty:
            self._server.leave_out(self)
            return
        lag = self._fault(FaultKind.LAG) if self._server.faults else None
        self._given += 1
        if lag is not None:
            self._later(lag.number("delay", 0.05), self._send, message)
        else:
            self._send(message)
            self._flush()

    def _grow_old(self) -> None:
        if self._engine.state is State.OPEN:
            self._engine.send_close(CloseCode.GOING_AWAY, "too old")

    def _notice(self) -> None:
        if self._exchange is not None:
            for message in self._exchange.notice(time.time_ns() // 1_000_000):
                self._send(message)
            self._flush()

    def _flow(self) -> None:
        """Send the data that is due."""
        feed, now_s = self._feed, time.monotonic()
        if self._is_paused or self._suffers(FaultKind.HALF_OPEN):
            feed.hold(now_s)
        elif self._suffers(FaultKind.MUTE_DATA):
            feed.mute(now_s)
        elif self._exchange is not None:
            now_ms = time.time_ns() // 1_000_000
            for number in feed.take(now_s):
                self._send(self._exchange.data(self._market, number, now_ms))
        self._later(feed.pause_s, self._flow)

    def _heartbeat(self, exchange: Exchange) -> None:
        if self._feed.has_begun and self._suffers(FaultKind.MUTE_DATA):
            self._send(exchange.heartbeat())
        self._later(exchange.heartbeat_s, self._heartbeat, exchange)

    # Faults ----------------------------------------------------------------------------------

    def _fault(self, kind: FaultKind) -> Fault | None:
        return self._server.faults.find(kind, self.path, self.tag, self.number)

    def _suffers(self, kind: FaultKind) -> bool:
        return bool(self._server.faults) and self._fault(kind) is not None

    def note_faults(self) -> None:
        """Stop reading while half-open; look again from time to time whether that is over."""
        if self._transport is None:
            return
        if self._suffers(FaultKind.HALF_OPEN):
            self._transport.pause_reading()
            self._later(HALF_OPEN_CHECK_S, self.note_faults)
        else:
            self._transport.resume_reading()

    def suffer(self, fault: Fault) -> None:
        """Do at once what a fault of a moment says."""
        transport = self._transport
        if transport is None:
            return
        if fault.kind is FaultKind.RESET:
            reset(transport)
        elif fault.kind is FaultKind.NOTICE:
            self._notice()
        elif fault.kind is FaultKind.CLOSE:
            with contextlib.suppress(ConnectionClosed, WebSocketException):
                code = int(fault.number("code", 1001))
                self._engine.send_close(code, fault.options.get("reason", ""))
            self._flush()
        else:
            for data in spoil(fault):
                transport.write(data)
