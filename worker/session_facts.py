"""Facts and requests of the session machine: what it is told, and what it asks the shell to do.

Pure.
"""

from dataclasses import dataclass
from typing import Protocol

from worker import heartbeat_facts
from worker.announcement import Announcement, Cause
from worker.close_codes import NORMAL
from worker.exits import Exit
from worker.silence import Heard
from worker.spec import ConnectionSpec, SubscribeSpec

NOTHING_HEARD = Heard()

# Facts ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The connection shall be dialled."""


@dataclass(frozen=True, slots=True)
class Postponed:
    """The dial that was asked for must wait: the host's connect budget is spent for so long."""

    delay_ns: int


@dataclass(frozen=True, slots=True)
class Connected:
    """TCP and TLS are done; the upgrade request is on its way to ``peer``."""

    peer: str


@dataclass(frozen=True, slots=True)
class Opened:
    """The handshake is done. ``logins`` are to be said before anything is subscribed."""

    logins: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadySeen:
    """The message that the exchange opens with has come."""


@dataclass(frozen=True, slots=True)
class AckSeen:
    """The exchange answered one subscription; ``error`` is its text if it refused."""

    error: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """Something left that the outbound limit counts: a pong, a reply to a ping."""


@dataclass(frozen=True, slots=True)
class DataSeen:
    """Data came while the session was stale."""


@dataclass(frozen=True, slots=True)
class SubscriptionWanted:
    """The subscription shall be another one."""

    wanted: SubscribeSpec


@dataclass(frozen=True, slots=True)
class Lost:
    """
    The socket of this session is gone, or never came to be.

    ``cause`` is a ``Cause``; ``code`` and ``reason`` are the peer's close frame, ``status`` its
    refusal of the handshake and ``retry_after_ns`` the wait it asked for. ``draw`` is a random
    number of [0, 1) for the backoff.
    """

    cause: str
    draw: float
    code: int | None = None
    reason: str = ""
    status: int | None = None
    error: str = ""
    retry_after_ns: int = 0
    permanent: Exit | None = None


@dataclass(frozen=True, slots=True)
class StopWanted:
    """The worker shall end; ``code`` and ``reason`` go into the close frame; ``cause`` says why."""

    code: int = NORMAL
    reason: str = ""
    cause: str = Cause.STOP


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Other numbers for ``reconnect``, from the next dial on, and for ``liveness``, at once."""

    spec: ConnectionSpec


@dataclass(frozen=True, slots=True)
class RenewalWanted:
    """The session shall be closed and dialled again."""

    cause: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. ``heard``: what was last heard in this session."""

    heard: Heard = NOTHING_HEARD


Event = (
    Started
    | Postponed
    | Connected
    | Opened
    | ReadySeen
    | AckSeen
    | Said
    | DataSeen
    | SubscriptionWanted
    | Lost
    | StopWanted
    | Adjusted
    | RenewalWanted
    | Tick
    | heartbeat_facts.Event
)


class Feed(Protocol):
    """Hands one fact to the session machine."""

    def __call__(self, event: Event, now_ns: int | None = None, /) -> None:
        """``now_ns``: when it happened, CLOCK_MONOTONIC; by default now."""


# Requests ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dial:
    """
    Open session number ``session``; answer with ``Connected``, ``Opened`` or ``Lost``.

    ``reserved``: the dial that was ``Postponed``, once more.
    """

    session: int
    reserved: bool = False


@dataclass(frozen=True, slots=True)
class Say:
    """Write these text messages."""

    texts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class CloseWire:
    """
    Send a close frame and close the socket within ``close_timeout``; answer with ``Lost``.

    ``wait``: give the peer that time to answer the close. A dead one gets none.
    """

    code: int
    reason: str
    wait: bool


@dataclass(frozen=True, slots=True)
class AbortWire:
    """Drop the socket, or the dial, now; answer with ``Lost``."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the world."""

    announcement: Announcement


@dataclass(frozen=True, slots=True)
class EndWorker:
    """The worker has nothing left to do."""

    code: Exit


Action = Dial | Say | CloseWire | AbortWire | Announce | EndWorker | heartbeat_facts.Action
