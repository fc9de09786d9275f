"""Simulator: an exchange in a process of its own, for demos and tests, with faults on command.

A real WebSocket server on the Sans-I/O core of ``websockets``, so that every byte, pong and reset
is ours to spoil. What is said is in ``exchange_dialects``; faults are in ``exchange_faults``.
Commands are plain HTTP on the same port (docs/simulator.md).
"""

import argparse
import asyncio
import contextlib
import errno
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import msgspec
import uvloop
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol

from supervisor.exchange_dialects import EXCHANGES, Exchange, Market, Message
from supervisor.exchange_faults import KINDS, Fault, FaultBoard, FaultKind, spoil
from worker.linux import set_process_name

TICK_S = 0.004
HALF_OPEN_CHECK_S = 0.1
BATCH_MAX = 500
BEHIND_MAX_S = 2.0  # what a stalled reader missed beyond this is skipped, and counted
COMMANDS = "/-/"
CONFIGURATION = 5
RATE_MIN, RATE_MAX = 1e-6, 200_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorConfig:
    """
    What the exchange does. Seconds are floats; ``port`` 0 takes any free one.

    ``rate`` is data messages a second per session, one in three a book update, the others trades.
    ``answer_delay_s`` is added to every answer. The same ``seed`` gives the same market.
    """

    host: str = "127.0.0.1"
    port: int = 9350
    rate: float = 20.0
    seed: int = 1
    answer_delay_s: float = 0.0


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


class Exchanges:
    """
    The server: its sessions and its faults.

    Args:
        config: What it does.

    """

    def __init__(self, config: SimulatorConfig) -> None:
        self.config = config
        self.faults = FaultBoard()
        self.sessions: dict[int, Session] = {}
        self.opened = 0

    def command(self, target: str) -> tuple[int, Any]:
        """Carry out an HTTP command; return status and document."""
        parts = urlsplit(target)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        match parts.path.removeprefix(COMMANDS):
            case "sessions":
                return 200, [session.describe() for session in self.sessions.values()]
            case "faults":
                return 200, [fault.describe() for fault in self.faults.active()]
            case "clear":
                self.faults.clear()
                return 200, []
            case "fault":
                return self._fault(query)
            case _:
                return 404, {"error": "commands: fault, faults, clear, sessions"}

    def _fault(self, query: dict[str, str]) -> tuple[int, Any]:
        try:
            fault = Fault.parse(query)
        except ValueError as error:
            return 400, {"error": str(error), "kinds": KINDS}
        if fault.path and fault.path not in EXCHANGES:
            return 404, {"error": f"no path {fault.path!r}", "paths": sorted(EXCHANGES)}
        matching = [s for s in self.sessions.values() if fault.concerns(s.path, s.tag)]
        if fault.kind.is_lasting:
            self.faults.add(fault)
            for session in matching:
                session.note_faults()
        else:
            for session in matching:
                session.suffer(fault)
        return 200, {"sessions": len(matching)}


class Session(asyncio.Protocol):
    """
    One client.

    Args:
        server: Whose.

    """

    def __init__(self, server: Exchanges) -> None:
        self._server = server
        self._engine = Engine()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._exchange: Exchange | None = None
        self._market = Market(server.config.seed)
        self._is_paused = False
        self._flow_started = 0.0
        self._flow_sent = 0
        self._unanswered_ms: list[int] = []
        self._unanswered_frames = 0
        self.path, self.tag = "", ""
        self.number = 0
        self.received = self.sent = self.pings = self.skipped = 0
        self._opened = time.monotonic()

    def describe(self) -> dict[str, Any]:
        """Return the session's line of ``/-/sessions``."""
        return {
            "id": self.number,
            "path": self.path,
            "tag": self.tag,
            "open_s": time.monotonic() - self._opened,
            "sent": self.sent,
            "received": self.received,
            "pings": self.pings,
            "skipped": self.skipped,
        }

    # The socket ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client dialled (asyncio.Protocol)."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is gone (asyncio.Protocol)."""
        self._server.sessions.pop(self.number, None)
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
        server = self._server
        server.opened += 1
        self.number = server.opened
        server.sessions[self.number] = self
        self._exchange = exchange
        self._opened = time.monotonic()
        for message in exchange.greeting():
            self._send(message)
        for interval_s, beat in (
            (exchange.server_ping_s, self._ping_message),
            (exchange.ping_frames_s, self._ping_frame),
            (exchange.heartbeat_s, self._heartbeat),
        ):
            if interval_s:
                self._later(interval_s, beat, interval_s)

    # What the client says --------------------------------------------------------------------

    def _frame(self, frame: Frame) -> None:
        exchange = self._exchange
        if frame.opcode is Opcode.PONG:
            self._unanswered_frames = 0
        if frame.opcode is not Opcode.TEXT or exchange is None:
            return
        self.received += 1
        text = bytes(frame.data).decode("utf-8", "replace")
        if self._unanswered_ms and exchange.is_pong(text, self._unanswered_ms[-1]):
            self._unanswered_ms.clear()
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
            if not self._flow_started:
                self._flow_started = time.monotonic()
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
        delay_s = self._server.config.answer_delay_s
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

    def _flow(self) -> None:
        """Send what is due on an absolute timetable; skip and count what a stalled reader cost."""
        rate, now = self._server.config.rate, time.monotonic()
        due = int((now - self._flow_started) * rate) - self._flow_sent
        if self._is_paused or self._suffers(FaultKind.HALF_OPEN):
            behind = due - int(BEHIND_MAX_S * rate)
            if behind > 0:
                self.skipped += behind
                self._flow_sent += behind
        elif self._suffers(FaultKind.MUTE_DATA):
            self._flow_sent += due
        elif self._exchange is not None:
            now_ms = time.time_ns() // 1_000_000
            for _ in range(min(due, BATCH_MAX)):
                self._flow_sent += 1
                self.sent += 1
                self._send(self._exchange.data(self._market, self.sent, now_ms))
        self._later(max(TICK_S, min(1 / rate, 0.1)), self._flow)

    def _ping_message(self, interval_s: float) -> None:
        exchange = self._exchange
        assert exchange is not None
        if len(self._unanswered_ms) >= exchange.misses_allowed:
            self._engine.send_close(1003, "ping check expired")
            return
        now_ms = time.time_ns() // 1_000_000
        self._unanswered_ms.append(now_ms)
        self._send(exchange.server_ping(now_ms))
        self._later(interval_s, self._ping_message, interval_s)

    def _ping_frame(self, interval_s: float) -> None:
        assert self._exchange is not None
        if self._unanswered_frames >= self._exchange.misses_allowed:
            self._engine.send_close(1008, "Pong timeout")
            return
        self._unanswered_frames += 1
        if self._engine.state is State.OPEN:
            self._engine.send_ping(str(time.time_ns() // 1_000_000).encode())
        self._later(interval_s, self._ping_frame, interval_s)

    def _heartbeat(self, interval_s: float) -> None:
        assert self._exchange is not None
        if self._flow_started and self._suffers(FaultKind.MUTE_DATA):
            self._send(self._exchange.heartbeat())
        self._later(interval_s, self._heartbeat, interval_s)

    # Faults ----------------------------------------------------------------------------------

    def _fault(self, kind: FaultKind) -> Fault | None:
        return self._server.faults.find(kind, self.path, self.tag)

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
            # An abort with SO_LINGER 0 is a RST (socket(7)); a plain close might be a FIN.
            raw: socket.socket = transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        elif fault.kind is FaultKind.CLOSE:
            with contextlib.suppress(ConnectionClosed, WebSocketException):
                code = int(fault.number("code", 1001))
                self._engine.send_close(code, fault.options.get("reason", ""))
            self._flush()
        else:
            for data in spoil(fault):
                transport.write(data)


async def serve(config: SimulatorConfig, lifeline: int | None) -> int:
    """Serve until SIGINT, SIGTERM or the end of the lifeline; return the exit code."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    exchanges = Exchanges(config)
    try:
        server = await loop.create_server(
            lambda: Session(exchanges), config.host, config.port, backlog=1024
        )
    except (OSError, ValueError) as error:  # ValueError: a host that can be none
        print(f"simulator: {_cannot_listen(config, error)}", file=sys.stderr)
        return CONFIGURATION
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    if lifeline is not None:
        loop.add_reader(lifeline, ended.set)
    port = server.sockets[0].getsockname()[1]
    print(f"LISTENING {config.host} {port}", flush=True)
    await ended.wait()
    server.close()
    return 0


def _cannot_listen(config: SimulatorConfig, error: Exception) -> str:
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    is_port = isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)
    mend = "port (0 takes any free one)" if is_port else "host: an address of this machine"
    return f"cannot listen on {config.host}:{config.port}: {why}; choose another {mend}"


def _number(low: float, high: float) -> Callable[[str], float]:
    """Return a parser of numbers within bounds, for argparse."""

    def number(text: str) -> float:
        value = float(text)
        if not low <= value <= high:  # nor NaN
            raise argparse.ArgumentTypeError(f"must be {low:g} to {high:g}, got {text}")
        return value

    return number


def _host(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("must name an address; 0.0.0.0 means all")
    return text


def main() -> int:
    """Parse the process's own arguments and serve."""
    defaults = SimulatorConfig()
    parser = argparse.ArgumentParser(prog="python -m supervisor.simulator", description=__doc__)
    parser.add_argument("--host", type=_host, default=defaults.host)
    parser.add_argument("--port", type=int, default=defaults.port)
    parser.add_argument("--rate", type=_number(RATE_MIN, RATE_MAX), default=defaults.rate)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--answer-delay", type=_number(0, 366 * 86400), default=0.0)
    parser.add_argument("--lifeline", type=int, default=None)
    arguments = parser.parse_args()
    set_process_name("fw-exchange")
    config = SimulatorConfig(
        host=arguments.host,
        port=arguments.port,
        rate=arguments.rate,
        seed=arguments.seed,
        answer_delay_s=arguments.answer_delay,
    )
    return uvloop.run(serve(config, arguments.lifeline))


if __name__ == "__main__":
    sys.exit(main())
