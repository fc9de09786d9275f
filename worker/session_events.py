"""Session events: what a session tells the world, in the words of docs/wire-format.md.

Pure. Times in nanoseconds come in, seconds go out: events are read by people and other languages.
"""

from shm.layout import Counter
from worker.announcement import Announcement, Cause, EventKind
from worker.heartbeat_facts import Looked
from worker.session_facts import Lost
from worker.spec import SECOND_NS

COUNTED_CAUSES: dict[str, tuple[Counter, ...]] = {
    Cause.PROTOCOL_ERROR: (Counter.PROTOCOL_ERRORS,),
    Cause.OVERSIZE: (Counter.OVERSIZE,),
}


def up(number: int, attempt: int, peer: str, connect_ns: int) -> Announcement:
    """Session ``number`` is subscribed, ``connect_ns`` after its dial began."""
    connect_s = round(connect_ns / SECOND_NS, 6)
    detail = {"session": number, "attempt": attempt, "peer": peer, "connect_s": connect_s}
    return Announcement(kind=EventKind.UP, detail=detail)


def timeout(number: int, cause: Cause, waited_ns: int, looked: Looked | None) -> Announcement:
    """Session ``number`` is dead; ``looked`` says how far that may be our own doing."""
    detail: dict[str, object] = {"session": number, "waited_s": round(waited_ns / SECOND_NS, 6)}
    if looked is not None:
        detail["loop_lag_s"] = round(looked.lag_ns / SECOND_NS, 3)
        detail["unread_bytes"] = looked.unread
    return Announcement(kind=EventKind.TIMEOUT, cause=cause, detail=detail)


def stale(age_ns: int) -> Announcement:
    """The last data is so old."""
    detail = {"age_s": round(age_ns / SECOND_NS, 6)}
    return Announcement(kind=EventKind.STALE, cause=Cause.DATA_SILENCE, detail=detail)


def fresh() -> Announcement:
    """Data again."""
    return Announcement(kind=EventKind.FRESH)


def subscription_changed(added: int, removed: int) -> Announcement:
    """The subscription was changed without a new session."""
    detail = {"subscribed": added, "unsubscribed": removed}
    return Announcement(kind=EventKind.CONFIG, cause=Cause.SUBSCRIPTION_CHANGED, detail=detail)


def change_refused(error: str) -> Announcement:
    """The exchange refused a part of a live change."""
    cause = Cause.SUBSCRIBE_REFUSED
    return Announcement(kind=EventKind.CONFIG, cause=cause, detail={"error": error})


def change_unanswered() -> Announcement:
    """The exchange did not answer a live change in time."""
    return Announcement(kind=EventKind.CONFIG, cause=Cause.SUBSCRIBE_TIMEOUT)


def down(
    lost: Lost,
    *,
    number: int,
    attempt: int,
    up_for_ns: int,
    delay_ns: int | None,
    our_cause: str,
    our_error: str,
) -> Announcement:
    """
    Session ``number`` has ended, or never came to be.

    Args:
        lost: How it looked to the wire.
        number: The session's.
        attempt: Dials since the last session that lasted.
        up_for_ns: How long it had been UP, 0 if it never was.
        delay_ns: Until the next dial, ``None`` if there will be none.
        our_cause: Why we closed it, "" if the peer or the network did. How our own closing then
            looked to the wire is no news.
        our_error: The text of that.

    """
    detail: dict[str, object] = {"session": number, "attempt": attempt}
    if up_for_ns:
        detail["up_s"] = round(up_for_ns / SECOND_NS, 3)
    for name in ("code", "reason", "status"):
        if (value := getattr(lost, name)) not in (None, ""):
            detail[name] = value
    if error := our_error if our_cause else lost.error:
        detail["error"] = error
    delay_s = None if delay_ns is None else delay_ns / SECOND_NS
    cause = our_cause or lost.cause
    return Announcement(kind=EventKind.DOWN, cause=cause, detail=detail, delay_s=delay_s)


def late_pong(rtt_ns: int) -> Announcement:
    """A pong came after its time."""
    return Announcement(kind=EventKind.LATE_PONG, detail={"rtt_ns": rtt_ns})


def counters_of(event: Announcement) -> tuple[Counter, ...]:
    """Return the counters that an event moves by one."""
    match event.kind:
        case EventKind.UP:
            return (Counter.SESSIONS,)
        case EventKind.TIMEOUT:
            return (Counter.TIMEOUTS,)
        case EventKind.LATE_PONG:
            return (Counter.LATE_PONGS,)
        case EventKind.DOWN:
            never_up = "up_s" not in event.detail and event.cause != Cause.STOP
            failed = (Counter.CONNECT_FAILURES,) if never_up else ()
            return failed + COUNTED_CAUSES.get(event.cause, ())
        case _:
            return ()
