"""Items: what a subscriber is given, in one stream.

Pure. They are tuples with names: cheap to make, equal by value, and `match` takes them apart.
"""

from typing import Any, Literal, NamedTuple

GapCause = Literal["lost", "overrun"]
LOST: GapCause = "lost"
OVERRUN: GapCause = "overrun"


class Message(NamedTuple):
    """
    One message of an exchange.

    Attributes:
        connection: Whose.
        epoch: Incarnation of the worker that received it.
        seq: Its number within the connection, from 1; goes on over incarnations.
        topic_seq: Its number within its topic and epoch, from 1.
        topic: ``data.<connection>``, or ``data.<connection>.<key>``.
        payload: As the exchange sent it.
        wall_ns: CLOCK_REALTIME when it arrived at this host, nanoseconds.
        monotonic_ns: CLOCK_MONOTONIC of the same moment, nanoseconds.
        repaired: Whether it comes from the journal instead of the wire.
        text: Whether it was a text message, which is UTF-8.
        stretch: What came without a break from the exchange within an epoch has one number. It
            counts modulo 16.

    """

    connection: str
    epoch: int
    seq: int
    topic_seq: int
    topic: str
    payload: bytes
    wall_ns: int
    monotonic_ns: int
    repaired: bool
    text: bool
    stretch: int = 0


class Gap(NamedTuple):
    """
    Messages that were published and that nobody can give any more.

    Attributes:
        connection: Whose.
        epoch: Incarnation before the gap; it may reach into the next.
        first: Where it begins, a ``seq``.
        last: Where it ends, inclusive.
        cause: ``lost``: no journal has them. ``overrun``: too late; the journal has come around, or
            ``on_age="skip"`` left them out.
        missing: How many messages. With topics it is those of ``topic`` within the range; ``None``
            if nobody can tell how many of the range, if any, were of the wanted topics.
        topic: Of which topic, where that is known.

    """

    connection: str
    epoch: int
    first: int
    last: int
    cause: GapCause
    missing: int | None
    topic: str | None = None


class SessionChange(NamedTuple):
    """
    The messages from here on come over another session with the exchange.

    What it sent in between was seen by nobody: books and other state must be built anew. Told for a
    new worker, for a worker that dialled again, and for numbers that begin anew.
    """

    connection: str
    epoch: int


class Event(NamedTuple):
    """
    Something that happened to a worker or to the fleet (docs/wire-format.md, Events).

    Attributes:
        fleet: Its name.
        connection: Whose; ``None`` for the fleet itself.
        kind: What, such as ``exit`` or ``up``.
        cause: Why, or empty.
        detail: Facts, by kind.
        delay_s: Seconds until the next attempt, where one is planned.
        incarnation: Of the worker.
        pid: Of the worker or the supervisor.
        seq: Its number in the fleet's event stream.
        time: RFC 3339, UTC, microseconds.
        monotonic_ns: CLOCK_MONOTONIC of the same moment, nanoseconds.

    """

    fleet: str
    connection: str | None
    kind: str
    cause: str
    detail: dict[str, Any]
    delay_s: float | None
    incarnation: int
    pid: int
    seq: int
    time: str
    monotonic_ns: int


Item = Message | Gap | SessionChange | Event
