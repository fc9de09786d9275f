"""Client: the library face. A WebSocket that keeps its own heartbeat and comes back by itself.

The same machines and the same shell as a supervised worker (``worker/connection.py``); messages go
to the user instead of ZeroMQ. Reading from the socket never waits for the user: a consumer that
stalls costs buffer, and in the end the oldest messages, but never the session.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping
from typing import Any, Literal, Self, TypeVar

from shm.layout import Counter
from worker import client_events as events
from worker.arguments import (
    BYTES,
    check_close,
    check_count,
    check_request,
    check_seconds,
    text_of,
    texts_of,
)
from worker.client_output import ClientOutput
from worker.client_stats import Stats
from worker.config import (
    BackoffConfig,
    HeartbeatConfig,
    heartbeat_of,
)
from worker.connection import Connection
from worker.errors import ConnectionClosed, ConnectionFailed, NotConnected
from worker.exits import Exit
from worker.session import SERVING, State
from worker.spec import MIB, ConnectionSpec, Decode, LimitsSpec, LivenessSpec, SubscribeSpec

BUFFER = 100_000
TURN_OF = 100  # messages a consumer may take from the buffer before the loop has its turn
STATES = {
    State.IDLE: "idle",
    State.DIALING: "connecting",
    State.HANDSHAKING: "connecting",
    State.SUBSCRIBING: "connecting",
    State.UP: "connected",
    State.STALE: "connected",
    State.DRAINING: "closing",
    State.WAITING: "reconnecting",
    State.CLOSED: "closed",
}
DEFAULT_HEARTBEAT = HeartbeatConfig()
DEFAULT_BACKOFF = BackoffConfig()
HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])
Data = str | bytes | Any


class WebSocket:
    """
    A WebSocket client with heartbeat, latency and reconnection.

    ``async with`` connects and closes; ``async for`` gives messages until the connection has ended
    for good. Use it on one event loop.

    Args:
        uri: ``ws://`` or ``wss://``.
        heartbeat: A config, seconds between pings, a preset's name, or ``None`` for no heartbeat.
        reconnect: Whether a lost session is dialled again.
        backoff: When.
        subscribe: Messages sent at the start of every session: text, bytes, or objects as JSON.
        headers: Added to the handshake.
        subprotocols: Offered in the handshake.
        ssl_context: For ``wss``; by default peer and name are verified against the system's
            certificates.
        proxy: ``http://`` or ``socks5://`` URL.
        compression: Offer permessage-deflate.
        max_message: Longest message in bytes; a longer one ends the session.
        connect_timeout: Seconds for dial, TLS and handshake together.
        close_timeout: Seconds after which a closing socket is gone, answered or not.
        engine: ``auto`` or ``websockets``.
        deserializer: Makes of a message (str or bytes) what ``recv`` gives. A message that it
            raises on is given as it is, and an ``error`` event says so.
        buffer: Messages that may wait for the consumer; beyond, the oldest are dropped and counted.

    Raises:
        ValueError: If an argument is impossible; the text names it.

    """

    def __init__(
        self,
        uri: str,
        *,
        heartbeat: HeartbeatConfig | float | str | None = DEFAULT_HEARTBEAT,
        reconnect: bool = True,
        backoff: BackoffConfig = DEFAULT_BACKOFF,
        subscribe: Iterable[Data] = (),
        headers: Mapping[str, str] | None = None,
        subprotocols: Iterable[str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        compression: bool = False,
        max_message: int = 16 * MIB,
        connect_timeout: float = 10.0,
        close_timeout: float = 1.0,
        engine: Literal["auto", "websockets"] = "auto",
        deserializer: Callable[[str | bytes], Any] | None = None,
        buffer: int = BUFFER,
    ) -> None:
        subprotocols = subprotocols if isinstance(subprotocols, str) else tuple(subprotocols or ())
        check_request(uri, headers or {}, subprotocols, proxy)
        check_seconds("connect_timeout", connect_timeout)
        check_seconds("close_timeout", close_timeout)
        check_count("max_message", max_message)
        check_count("buffer", buffer)
        if engine not in ("auto", "websockets"):
            raise ValueError(f"engine must be auto or websockets, got {engine!r}")
        if not isinstance(ssl_context, ssl.SSLContext | None):
            raise ValueError(f"ssl_context must be an ssl.SSLContext, got {ssl_context!r}")
        if not isinstance(backoff, BackoffConfig):
            raise ValueError(f"backoff must be a BackoffConfig, got {backoff!r}")
        if deserializer is not None and not callable(deserializer):
            raise ValueError(f"deserializer must be a function, got {deserializer!r}")
        config = heartbeat_of(heartbeat)
        self._uri = uri
        self._spec = ConnectionSpec(
            name="client",
            url=uri,
            subscribe=SubscribeSpec(messages=texts_of(subscribe)),
            headers=tuple((headers or {}).items()),
            subprotocols=tuple(subprotocols),
            compression=compression,
            proxy=proxy,
            heartbeat=config.spec() if config is not None else None,
            server_ping=config.server_pings() if config is not None else (),
            server_heartbeat=config.server_beat() if config is not None else None,
            decode=Decode(config.decode) if config is not None else Decode.NONE,
            liveness=config.liveness() if config is not None else LivenessSpec(),
            reconnect=backoff.spec(
                enabled=reconnect, connect_timeout=connect_timeout, close_timeout=close_timeout
            ),
            limits=LimitsSpec(max_message=max_message),
        )
        matcher = config.pong_matcher if config is not None else None
        self._pong_matcher = matcher if callable(matcher) else None
        self._ssl_context, self._deserializer = ssl_context, deserializer
        self._dispatcher = events.Dispatcher(buffer)
        self._ear = ClientOutput(self._dispatcher, uri, self._give, buffer)
        self._connection: Connection | None = None
        self._close_timeout = close_timeout
        self._sending = asyncio.Lock()
        self._given = 0  # messages in a row without a turn for the loop

    # Life ------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """
        Connect; return once a session is up. A second call waits for the same.

        With ``reconnect`` it goes on until one is, or ``max_attempts`` are spent.

        Raises:
            ConnectionFailed: If it is given up.
            ConnectionClosed: If this client has been closed; make another.

        """
        ear = self._ear
        if ear.closed.is_set():
            raise ConnectionClosed(ear.code, ear.reason)
        begun = self._connection is None
        if self._connection is None:
            self._connection = Connection(
                self._spec,
                ear,
                ear.words,
                ear.counters,
                pong_matcher=self._pong_matcher,
                tls=self._ssl_context,
            )
            self._connection.start()
        sessions = ear.counters[Counter.SESSIONS]
        try:
            await _first_of(ear.up.wait(), ear.closed.wait())
        except asyncio.CancelledError:
            if begun:
                self._connection.stop()
            raise
        # Counted, for a session may have come and gone before this task had its turn.
        if not ear.up.is_set() and ear.counters[Counter.SESSIONS] == sessions:
            await self._connection.close()
            raise ConnectionFailed(self._uri, ear.cause, ear.error, ear.status)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """
        Close for good; return once the socket is gone and the handlers have run.

        Either is waited for no longer than ``close_timeout``; slower handlers go on. A second call,
        or one before ``connect``, does nothing more.

        Args:
            code: Goes into the close frame: 1000 to 1014 but for those that stand for the lack of
                one, or 3000 to 4999 (RFC 6455 section 7.4).
            reason: Goes beside it, at most 123 bytes.

        Raises:
            ValueError: If no frame can carry them.

        """
        check_close(code, reason)
        ear = self._ear
        if self._connection is None:
            ear.ended(Exit.STOPPED)
        elif not ear.closed.is_set():
            self._connection.stop(code, reason)
            await ear.closed.wait()
        if self._connection is not None:
            await self._connection.close()
        await self._dispatcher.drained(self._close_timeout)

    async def wait_closed(self) -> None:
        """Wait until the connection has ended for good."""
        await self._ear.closed.wait()

    async def run(self) -> None:
        """Connect, and return when the connection has ended for good: for users of handlers."""
        await self.connect()
        await self.wait_closed()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    # Messages --------------------------------------------------------------------------------

    async def recv(self) -> Data:
        """
        Return the next message: str for text, bytes for binary, or what ``deserializer`` makes.

        Cancelling it loses no message.

        Raises:
            ConnectionClosed: If the connection has ended for good and every message was taken.

        """
        ear = self._ear
        ear.has_consumer = True
        while not ear.buffer:
            if ear.closed.is_set():
                raise ConnectionClosed(ear.code, ear.reason)
            ear.arrived.clear()
            self._given = 0
            await ear.arrived.wait()
        self._given += 1
        if self._given >= TURN_OF:
            self._given = 0
            await asyncio.sleep(0)
            return await self.recv()  # another task may have taken what was there
        return self._give(*ear.buffer.popleft())

    async def __aiter__(self) -> AsyncIterator[Data]:
        with contextlib.suppress(ConnectionClosed):
            while True:
                yield await self.recv()

    async def send(self, data: Data) -> None:
        """
        Send text (str), binary (bytes, bytearray, memoryview) or another object as JSON text.

        Waits while the peer does not keep up; a lost session ends the wait.

        Raises:
            NotConnected: If there is no session, or it is lost meanwhile.
            TypeError: If the object cannot be JSON.
            UnicodeEncodeError: If the text has lone surrogates.

        """
        wire = self._connection.wire if self._connection is not None else None
        if wire is None or not self.is_connected:
            raise NotConnected(self.state)
        payload = bytes(data) if isinstance(data, BYTES) else text_of(data).encode()
        # One after the other: all who wait would else write at once when the peer reads again.
        async with self._sending:
            await wire.drained()
            send = wire.send_binary if isinstance(data, BYTES) else wire.send_text
            sent = send(payload)
        if not sent:
            raise NotConnected(self.state)
        self._ear.sent += 1
        self._ear.sent_bytes += len(payload)

    async def ping(self, payload: bytes | None = None, timeout: float = 10.0) -> float:
        """
        Send a PING frame now and return its round trip in milliseconds.

        Beside the heartbeat: it postpones nothing, and its failure ends nothing.

        Args:
            payload: Its body, at most 125 bytes; by default one of its own.
            timeout: Seconds to wait.

        Raises:
            NotConnected: If there is no session, or it is lost meanwhile.
            TimeoutError: If no PONG comes in time.
            ValueError: If the payload is not bytes, too long, or that of a ping still unanswered;
                or the timeout no duration.

        """
        check_seconds("timeout", timeout)
        if payload is not None and not isinstance(payload, bytes):
            raise ValueError(f"payload must be bytes, got {type(payload).__name__}")
        if payload is not None and len(payload) > 125:
            raise ValueError(f"payload: a PING body has at most 125 bytes, got {len(payload)}")
        if payload in self._ear.asked:
            raise ValueError(f"payload: a ping with {payload!r} waits for its answer already")
        if self._connection is None or not self.is_connected:
            raise NotConnected(self.state)
        answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def take(rtt_ns: int) -> None:
            if not answered.done():
                answered.set_result(rtt_ns)

        body = self._connection.ping_once(payload, take)
        if body is None:
            raise NotConnected(self.state)
        self._ear.asked[body] = answered
        try:
            async with asyncio.timeout(timeout):
                return await answered / 1e6
        finally:
            self._ear.asked.pop(body, None)
            self._connection.forget_ping(body)

    def _give(self, payload: bytes, is_text: bool) -> Data:
        data: str | bytes = payload.decode("utf-8", "replace") if is_text else payload
        if self._deserializer is None:
            return data
        try:
            return self._deserializer(data)
        except (Exception, asyncio.CancelledError) as error:  # the user's function, not our task
            self._ear.counters[Counter.DECODE_ERRORS] += 1
            self._dispatcher.emit(events.Error(error=error, where="deserializer"))
            return data

    # Events ----------------------------------------------------------------------------------

    def on(self, event: str) -> Callable[[HandlerT], HandlerT]:
        """
        Return a decorator that adds a handler, a function or a coroutine function of one argument.

        Raises:
            ValueError: If there is no such event; ``worker.client_events`` has them all.

        """

        def add(handler: HandlerT) -> HandlerT:
            self._dispatcher.add(event, handler)
            return handler

        return add

    def add_handler(self, event: str, handler: Callable[..., Any]) -> None:
        """Add a handler, as ``on``."""
        self._dispatcher.add(event, handler)

    def remove_handler(self, event: str, handler: Callable[..., Any]) -> None:
        """Remove a handler; that it was never added is no error."""
        self._dispatcher.remove(event, handler)

    # What there is to know -------------------------------------------------------------------

    @property
    def uri(self) -> str:
        """As given."""
        return self._uri

    @property
    def state(self) -> str:
        """``idle connecting connected reconnecting closing closed``."""
        if self._ear.closed.is_set():
            return "closed"
        if self._connection is None:
            return "idle"
        return STATES[self._connection.session.state]

    @property
    def is_connected(self) -> bool:
        """Whether a session is up."""
        return self._connection is not None and self._connection.session.state in SERVING

    @property
    def latency_ms(self) -> float | None:
        """Round trip of this session's last answered ping; ``None`` before there is one."""
        return self._ear.latencies.last_ms

    def stats(self) -> Stats:
        """Return a snapshot."""
        ear, counters = self._ear, self._ear.counters
        latencies = ear.latencies
        least, greatest = latencies.extremes_ms()
        up_ns = self._connection.session.up_ns if self._connection is not None else 0
        return Stats(
            state=self.state,
            uptime=(time.monotonic_ns() - up_ns) / 1e9 if up_ns else 0.0,
            sessions=counters[Counter.SESSIONS],
            reconnects=counters[Counter.RECONNECTS],
            connect_failures=counters[Counter.CONNECT_FAILURES],
            messages_received=counters[Counter.MESSAGES],
            bytes_received=counters[Counter.BYTES],
            messages_sent=ear.sent,
            bytes_sent=ear.sent_bytes,
            messages_dropped=ear.dropped + self._dispatcher.dropped,
            events_dropped=self._dispatcher.others_dropped,
            pings=counters[Counter.PINGS],
            pongs=counters[Counter.PONGS],
            late_pongs=counters[Counter.LATE_PONGS],
            missed_pongs=counters[Counter.MISSED_PONGS],
            foreign_pongs=counters[Counter.FOREIGN_PONGS],
            timeouts=counters[Counter.TIMEOUTS],
            server_pings=counters[Counter.SERVER_PINGS],
            matcher_errors=counters[Counter.MATCHER_ERRORS],
            decode_errors=counters[Counter.DECODE_ERRORS],
            handler_errors=self._dispatcher.errors,
            latency_ms=latencies.last_ms,
            latency_avg_ms=latencies.average_ms,
            latency_min_ms=least,
            latency_p50_ms=latencies.percentile_ms(50),
            latency_p99_ms=latencies.percentile_ms(99),
            latency_max_ms=greatest,
        )


def connect(uri: str, **options: Any) -> WebSocket:
    """
    Return a client to be entered or awaited: ``async with connect(uri) as ws``.

    Args:
        uri: As for ``WebSocket``.
        **options: As for ``WebSocket``.

    Raises:
        ValueError: As ``WebSocket``.

    """
    return WebSocket(uri, **options)


async def _first_of(*waits: Any) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
