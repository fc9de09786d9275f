"""Events of the library face, and the dispatcher that hands them to handlers.

Handlers run beside the connection, one after the other and in the order of the events: a slow one
delays other handlers and nothing else.
"""

import asyncio
import contextvars
import inspect
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic_ns
from typing import Any, ClassVar

log = logging.getLogger("worker.client")


def wall_time(moment_ns: int) -> datetime:
    """Return the wall time, UTC, of a moment of CLOCK_MONOTONIC that has just been."""
    return datetime.now(UTC) - timedelta(microseconds=(monotonic_ns() - moment_ns) / 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """
    Something that happened.

    Attributes:
        time: Wall time, UTC.
        monotonic_ns: CLOCK_MONOTONIC of the same moment.

    """

    name: ClassVar[str] = ""
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    monotonic_ns: int = field(default_factory=monotonic_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connecting(Event):
    """A dial leaves; ``attempt`` counts from 1 since the last session that lasted."""

    name: ClassVar[str] = "connecting"
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected(Event):
    """A session is up and subscribed; number ``session`` of this client."""

    name: ClassVar[str] = "connected"
    uri: str
    session: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected(Event):
    """
    A session that was up has ended.

    ``code`` and ``reason`` are of the peer's close frame, 1006 without one; ``cause`` is a word of
    ``worker.announcement.Cause`` (``stop`` after our own ``close``).
    """

    name: ClassVar[str] = "disconnected"
    code: int
    reason: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnecting(Event):
    """The next dial leaves in ``delay`` seconds; ``error`` says what ended the last."""

    name: ClassVar[str] = "reconnecting"
    attempt: int
    delay: float
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping(Event):
    """A ping was sent."""

    name: ClassVar[str] = "ping"
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong(Event):
    """
    A ping was answered in time.

    ``latency_ms`` is ``None`` if we were too late in reading the answer to measure anything.
    """

    name: ClassVar[str] = "pong"
    latency_ms: float | None
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LatePong(Event):
    """An answer came after its timeout; it measures nothing and saves nothing."""

    name: ClassVar[str] = "late_pong"
    latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout(Event):
    """
    The session is dead: nothing came for ``waited`` seconds. ``cause``: see ``Disconnected``.

    ``loop_lag`` is how long our own loop stood in one piece meanwhile, in seconds, and
    ``unread_bytes`` what waited in the socket still; of one or the other the cause is ``busy``.
    """

    name: ClassVar[str] = "timeout"
    waited: float
    cause: str
    loop_lag: float = 0.0
    unread_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale(Event):
    """The exchange answers and sends no data; the last is ``age`` seconds old."""

    name: ClassVar[str] = "stale"
    age: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh(Event):
    """Data again."""

    name: ClassVar[str] = "fresh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(Event):
    """Data came. ``data`` is what ``recv`` would give."""

    name: ClassVar[str] = "message"
    data: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Error(Event):
    """
    A function of the user's raised, or a payload was not compressed as ``decode`` says.

    ``where`` is ``pong_matcher`` (any rule, in fact), ``deserializer``, ``decode`` or
    ``handler of <event>``.
    """

    name: ClassVar[str] = "error"
    error: BaseException
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed(Event):
    """The connection has ended for good; exactly one a client."""

    name: ClassVar[str] = "closed"
    code: int
    reason: str


NAMES = frozenset(
    kind.name
    for kind in (
        Connecting, Connected, Disconnected, Reconnecting, Ping, Pong, LatePong, Timeout, Stale,
        Fresh, Message, Error, Closed,
    )
)  # fmt: skip
Handler = Callable[[Any], Any]
OTHERS_MAX = 10_000  # events other than messages that may wait for slow handlers
# The dispatcher whose handler runs here, or began the task that runs here.
_handling: contextvars.ContextVar["Dispatcher | None"] = contextvars.ContextVar(
    "handling", default=None
)


def check_name(name: object) -> None:
    """Raises ValueError if there is no event of that name."""
    if name not in NAMES:
        raise ValueError(f"no event {name!r}; there are {', '.join(sorted(NAMES))}")


def _place_of_first(queue: deque[tuple[int, Event, int]]) -> int:
    return queue[0][0]


class Dispatcher:
    """
    Runs handlers.

    Args:
        waiting_max: Message events that may wait for slow handlers; beyond, the oldest are dropped.
            Of all others together ``OTHERS_MAX`` may, so that no flood of messages drops any.
        bytes_max: Bytes of message events that may wait; one always may.

    Attributes:
        errors: Handlers that raised.
        dropped: Message events that were dropped.
        others_dropped: Events of other kinds that were.

    """

    def __init__(self, waiting_max: int, bytes_max: int) -> None:
        self._handlers: dict[str, list[Handler]] = {}
        # Each with its place in the order of all, by which the two are merged, and its bytes.
        self._messages: deque[tuple[int, Event, int]] = deque()
        self._others: deque[tuple[int, Event, int]] = deque()
        self._emitted = self._bytes = 0
        self._messages_max, self._bytes_max = waiting_max, bytes_max
        self._task: asyncio.Task[None] | None = None
        self.errors = self.dropped = self.others_dropped = 0

    def add(self, name: str, handler: Handler) -> None:
        """
        Call ``handler`` for events of that name, after those added before.

        Raises:
            ValueError: If there is no such event, or the handler is no function.

        """
        check_name(name)
        if not callable(handler):
            raise ValueError(f"a handler of {name!r} must be a function, got {handler!r}")
        handlers = self._handlers.setdefault(name, [])
        if handler not in handlers:
            handlers.append(handler)

    def remove(self, name: str, handler: Handler) -> None:
        """Call it no more; that it was never added is no error."""
        if handler in self._handlers.get(name, ()):
            self._handlers[name].remove(handler)

    def hears(self, name: str) -> bool:
        """Return whether anybody wants events of that name."""
        return bool(self._handlers.get(name))

    def emit(self, event: Event, size: int = 0) -> None:
        """Have the handlers of an event called, soon and in order; ``size``: bytes of a message."""
        if not self._handlers.get(event.name):
            return
        self._emitted += 1
        if isinstance(event, Message):
            waiting = self._messages
            self._bytes += size
            while waiting and (len(waiting) >= self._messages_max or self._bytes > self._bytes_max):
                self._bytes -= waiting.popleft()[2]
                self.dropped += 1
            waiting.append((self._emitted, event, size))
        else:
            if len(self._others) >= OTHERS_MAX:
                self._others.popleft()
                self.others_dropped += 1
            self._others.append((self._emitted, event, 0))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def _next(self) -> Event | None:
        queues = [queue for queue in (self._messages, self._others) if queue]
        if not queues:
            return None
        _place, event, size = min(queues, key=_place_of_first).popleft()
        self._bytes -= size
        return event

    async def _run(self) -> None:
        _handling.set(self)
        try:
            while (event := self._next()) is not None:
                for handler in tuple(self._handlers.get(event.name, ())):
                    await self._call(handler, event)
        finally:
            self._task = None

    async def _call(self, handler: Handler, event: Event) -> None:
        try:
            result = handler(event)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._raised(event, RuntimeError(f"cancelled: {error}"))  # something it waited for
        except Exception as error:  # the user's code may raise anything
            self._raised(event, error)

    def _raised(self, event: Event, error: Exception) -> None:
        self.errors += 1
        log.error("a handler of %r raised", event.name, exc_info=error)
        if not isinstance(event, Error):
            self.emit(Error(error=error, where=f"handler of {event.name}"))

    async def drained(self, timeout: float) -> None:
        """Wait until every handler has run, or so many seconds; not at all if one of them asks."""
        if self._task is not None and _handling.get() is not self:
            await asyncio.wait((self._task,), timeout=timeout)
