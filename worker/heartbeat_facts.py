"""What the heartbeat is told and what it asks for (``worker/heartbeat.py``). Pure data."""

from dataclasses import dataclass

from worker.announcement import Cause

BUSY_LAG_MIN_NS = 250_000_000  # a shorter pause of ours explains no missing answer


# Facts ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True, slots=True)
class Sending:
    """A ping is about to be written to the socket, with this body."""

    seq: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """It was written at ``now_ns``: its round trip begins."""

    seq: int


@dataclass(frozen=True, slots=True)
class SendFailed:
    """A ping could not be written."""


@dataclass(frozen=True, slots=True)
class PongFrame:
    """A PONG frame came. It must echo a body (RFC 6455 section 5.5.3)."""

    body: bytes


@dataclass(frozen=True, slots=True)
class PongElsewhere:
    """A PONG frame answered a ping outside the timetable, which was sent at ``sent_ns``."""

    sent_ns: int


@dataclass(frozen=True, slots=True)
class PongMessage:
    """The dialect recognised a pong; ``echo`` is the sequence number it carries, if it does."""

    echo: str | None


@dataclass(frozen=True, slots=True)
class Looked:
    """
    What had waited in the socket when ``Look`` was asked for has been read.

    ``unread`` bytes wait there still: more than we could take, so the pong may be among them.
    ``lag_ns`` is the longest time that our loop stood in one piece since the moment asked for.
    """

    unread: int = 0
    lag_ns: int = 0

    def blames_us(self, waited_ns: int) -> bool:
        """
        Return whether silence for ``waited_ns`` may be our own doing.

        A loop that stands reads nothing: the peer's window closes, and its answer is on the way
        when the socket has been emptied at last. No answer within the other half is the peer's.
        """
        return self.unread > 0 or self.lag_ns >= max(waited_ns // 2, BUSY_LAG_MIN_NS)


Event = Tick | Sending | Sent | SendFailed | PongFrame | PongElsewhere | PongMessage | Looked


# Requests ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendPing:
    """Say ``Sending``, send ping number ``seq``, then say ``Sent`` or ``SendFailed``."""

    seq: int


@dataclass(frozen=True, slots=True)
class TakePong:
    """
    A ping was answered in time.

    ``rtt_ns`` is ``None`` if the answer was only read after the timeout, because we were late to
    look: it proves the exchange alive and measures nothing but ourselves.
    """

    seq: int
    rtt_ns: int | None


@dataclass(frozen=True, slots=True)
class CountLatePong:
    """A pong came for a ping whose time was over. ``rtt_ns`` says by how much."""

    rtt_ns: int


@dataclass(frozen=True, slots=True)
class CountMissed:
    """A ping was not answered in time, and that is not yet death."""

    seq: int


@dataclass(frozen=True, slots=True)
class CountForeignPong:
    """A pong came that answers nothing: unsolicited, duplicate, of another body."""


@dataclass(frozen=True, slots=True)
class Look:
    """Read what already waits in the socket, then say ``Looked``, of our lag since ``since_ns``."""

    since_ns: int


@dataclass(frozen=True, slots=True)
class DeclareDead:
    """
    The session is dead.

    ``cause``: ping_timeout if the exchange is silent, busy if it may have been us (``looked``, see
    ``Looked.blames_us``), send_failed.
    """

    cause: Cause
    seq: int
    waited_ns: int
    looked: Looked | None = None


Action = SendPing | TakePong | CountLatePong | CountMissed | CountForeignPong | Look | DeclareDead
