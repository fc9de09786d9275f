"""Client: the library face. A WebSocket that keeps its own heartbeat and comes back by itself.

The same machines and the same shell as a supervised worker (``worker/connection.py``); messages go
to the user instead of ZeroMQ. Reading from the socket never waits for the user: a consumer that
stalls costs buffer, and in the end the oldest messages, but never the session.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping
from typing import Any, Literal, Self, TypeVar

from shm.layout import Counter
from worker import client_arguments as arguments
from worker import client_events as events
from worker.client_dispatcher import Dispatcher
from worker.client_inbox import Inbox
from worker.client_output import ClientOutput
from worker.client_spec import client_spec
from worker.client_stats import Stats
from worker.config import BackoffConfig, HeartbeatConfig, heartbeat_of
from worker.connection import Connection
from worker.errors import ConnectionClosed, ConnectionFailed, NotConnected, WrongLoop
from worker.exits import Exit
from worker.ping_payload import BODY_MAX
from worker.session import SERVING
from worker.spec import MIB

BUFFER, BUFFER_BYTES = 100_000, 256 * MIB
DEFAULT_HEARTBEAT = HeartbeatConfig()
DEFAULT_BACKOFF = BackoffConfig()
HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])
Data = str | bytes | Any


class WebSocket:
    """
    A WebSocket client with heartbeat, latency and reconnection.

    ``async with`` connects and closes; ``async for`` gives messages until the connection has ended
    for good. It belongs to the event loop on which it is first awaited: on another, every method
    that is awaited raises ``WrongLoop``.

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
        engine: ``picows``, ``websockets``, or ``auto``: picows unless ``compression`` is asked for.
        deserializer: Makes of a message (str or bytes) what ``recv`` gives. A message that it
            raises on is given as it is, and an ``error`` event says so.
        buffer: Messages that may wait for the consumer; beyond, the oldest are dropped and counted.
        buffer_bytes: Bytes of their payloads that may wait; the latest message always has a place.

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
        engine: Literal["auto", "websockets", "picows"] = "auto",
        deserializer: Callable[[str | bytes], Any] | None = None,
        buffer: int = BUFFER,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        arguments.check_count("buffer", buffer)
        arguments.check_count("buffer_bytes", buffer_bytes)
        arguments.check_network(ssl_context, proxy)
        if deserializer is not None:
            arguments.check_instance("deserializer", deserializer, Callable, "a function")  # type: ignore[arg-type]
        config = heartbeat_of(heartbeat)
        self._uri = uri
        self._spec = client_spec(
            uri,
            config=config,
            reconnect=reconnect,
            backoff=backoff,
            subscribe=subscribe,
            headers=headers,
            subprotocols=subprotocols,
            proxy=proxy,
            compression=compression,
            max_message=max_message,
            connect_timeout=connect_timeout,
            close_timeout=close_timeout,
            engine=engine,
        )
        matcher = None if config is None else config.pong_matcher
        self._pong_matcher = matcher if callable(matcher) else None
        self._ssl_context, self._deserializer = ssl_context, deserializer
        self._dispatcher = Dispatcher(buffer, buffer_bytes)
        self._inbox = Inbox(buffer, buffer_bytes)
        self._ear = ClientOutput(self._dispatcher, uri, self._give, self._inbox)
        self._connection: Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._close_timeout = close_timeout
        self._sending = asyncio.Lock()

    # Life ------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """
        Connect; return once a session is up. A second call waits for the same.

        With ``reconnect`` it goes on until one is, or ``max_attempts`` are spent.

        Raises:
            ConnectionFailed: If it is given up.
            ConnectionClosed: If this client has been closed; make another.
            WrongLoop: On another event loop than that of the first call, as every method here.

        """
        self._on_its_loop()
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
            await ear.settled.wait()
        except asyncio.CancelledError:
            if begun:
                self._connection.stop()
            raise
        # Counted, for a session may have come and gone before this task had its turn.
        if not self.is_connected and ear.counters[Counter.SESSIONS] == sessions:
            await self._connection.close()
            raise ConnectionFailed(self._uri, ear.cause, ear.error, ear.status)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """
        Close for good; return once the socket is gone and the handlers have run.

        Either is waited for no longer than ``close_timeout``; slower handlers go on. A second call,
        or one before ``connect``, does nothing more.

        Args:
            code: Close code, one that may be sent (RFC 6455 section 7.4).
            reason: At most 123 bytes of UTF-8.

        Raises:
            ValueError: If code or reason cannot be sent; the connection stays as it is.

        """
        arguments.check_closing(code, reason)
        self._on_its_loop()
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
        self._on_its_loop()
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

    def _on_its_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise WrongLoop
            self._loop = loop

    # Messages --------------------------------------------------------------------------------

    async def recv(self) -> Data:
        """
        Return the next message: str for text, bytes for binary, or what ``deserializer`` makes.

        Cancelling it loses no message.

        Raises:
            ConnectionClosed: If the connection has ended for good and every message was taken.
            NotConnected: If ``connect`` was never called: there would be nothing to wait for.

        """
        self._on_its_loop()
        if self._connection is None and not self._ear.closed.is_set():
            raise NotConnected(self.state)
        item = await self._inbox.take()
        if item is None:
            raise ConnectionClosed(self._ear.code, self._ear.reason)
        return self._give(*item)

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
            TypeError: If an object cannot be JSON.
            UnicodeEncodeError: If a text has lone surrogates.

        """
        self._on_its_loop()
        wire = self._connection.wire if self._connection is not None else None
        if wire is None or not self.is_connected:
            raise NotConnected(self.state)
        payload, is_text = arguments.payload_of(data)
        # One after the other: all who wait would else write at once when the peer reads again.
        async with self._sending:
            await wire.drained()
            sent = wire.send_text(payload) if is_text else wire.send_binary(payload)
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
            ValueError: If the payload is no bytes, is too long, or that of a ping still unanswered;
                or the timeout is no duration.

        """
        self._on_its_loop()
        arguments.check_seconds("timeout", timeout)
        if payload is not None:
            arguments.check_instance("payload", payload, bytes, 'bytes, such as b"x"')
            if len(payload) > BODY_MAX:
                raise ValueError(
                    f"payload: a PING body has at most {BODY_MAX} bytes, got {len(payload)}"
                )
        if self._connection is None or not self.is_connected:
            raise NotConnected(self.state)
        answered = self._connection.ping_once(payload)
        if answered is None:
            raise NotConnected(self.state)
        try:
            async with asyncio.timeout(timeout):
                return await answered / 1e6
        except ConnectionResetError:
            raise NotConnected(self.state) from None

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
        events.check_name(event)

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

    def __repr__(self) -> str:
        """Without the URI: it may hold a token."""
        return f"<WebSocket {self._ear.host} {self.state}>"

    @property
    def uri(self) -> str:
        """As given."""
        return self._uri

    @property
    def state(self) -> str:
        """``idle connecting connected reconnecting closing closed``."""
        return self._ear.state_word

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
        up_ns = self._connection.session.up_ns if self._connection is not None else 0
        return self._ear.stats(self.state, up_ns)


connect = WebSocket  # ``async with connect(uri) as ws``, ``ws = await connect(uri)``
