"""Events of the library face: what a user's handlers are told."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic_ns
from typing import Any, ClassVar


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


def check_name(name: object) -> None:
    """Raises ValueError if there is no event of that name."""
    if name not in NAMES:
        raise ValueError(f"no event {name!r}; there are {', '.join(sorted(NAMES))}")
