"""Heartbeat rules: settings of our pings that contradict each other. Pure.

The keys of ``[connection.heartbeat]`` and the fields of ``HeartbeatConfig`` have the same names and
obey the same rules, these. That of two kinds of ping one must be on is not among them: the library
knows heartbeats without pings of ours, fleet.toml says ``heartbeat = false``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from worker import ping_payload
from worker.utf8 import is_utf8

INTERVAL_MIN_S = 0.001  # what the timers of uvloop count in


@dataclass(frozen=True, slots=True, kw_only=True)
class PingSettings:
    """What was set; ``interval`` and ``timeout`` in a unit of which ``second`` is one second."""

    second: float
    interval: float
    timeout: float
    payload: bytes
    use_ws_ping: bool
    use_application_ping: bool
    has_matcher: bool
    pong_id: str | None
    misses: int


def contradictions(settings: PingSettings) -> Iterator[tuple[str, str]]:
    """Yield the name of each setting that cannot be, and why."""
    if settings.interval < INTERVAL_MIN_S * settings.second:
        yield (
            "interval",
            f"must be at least {INTERVAL_MIN_S:g} s, got {settings.interval / settings.second:g}: "
            "no timer is that fine",
        )
    if fault := ping_payload.fault_of(settings.payload):
        yield "payload", fault
    if settings.use_application_ping:
        if settings.use_ws_ping:
            yield "use_application_ping", "excludes use_ws_ping; switch that off"
        yield from _of_messages(settings)
    elif settings.use_ws_ping:
        yield from _of_frames(settings)


def silence_fault(max_silence: float, interval: float, first: float | None) -> str:
    """Return why a bound on silence cannot be beside pings, "" if it can; all in one unit."""
    if max_silence > max(interval, first or 0):
        return ""
    return (
        "must be above the heartbeat's interval and first: pongs are frames too, and a session "
        "with nothing else to say would be killed in good health"
    )


def _of_messages(settings: PingSettings) -> Iterator[tuple[str, str]]:
    if not settings.payload:
        yield "payload", "is missing: an application ping must say what to send"
    elif not is_utf8(settings.payload):
        yield "payload", "is no UTF-8: an application ping is a text message (RFC 6455 section 5.6)"
    if not settings.has_matcher:
        yield "pong_matcher", "is missing: an application ping must know its answer"
    if settings.pong_id is not None:
        if settings.payload and b"${seq}" not in settings.payload:
            yield "pong_id", "needs ${seq} in payload: nothing else is echoed"
        return
    if settings.timeout > settings.interval:
        yield "timeout", "must not be above interval: without pong_id pongs cannot be told apart"
    if settings.misses > 1:
        yield "misses", "above 1 needs pong_id: a late pong could not be told from the next ping's"


def _of_frames(settings: PingSettings) -> Iterator[tuple[str, str]]:
    length = ping_payload.longest(settings.payload)
    if length > ping_payload.BODY_MAX:
        yield (
            "payload",
            f"is too long: a PING body has at most {ping_payload.BODY_MAX} bytes, got {length} "
            "with its fields at their longest (RFC 6455 section 5.5)",
        )
    for key, is_set in (
        ("pong_matcher", settings.has_matcher),
        ("pong_id", settings.pong_id is not None),
    ):
        if is_set:
            yield (
                key,
                "is for application pings; a PING frame's answer is a PONG frame: leave it out, or "
                "switch use_ws_ping off and use_application_ping on",
            )
    if settings.payload and ping_payload.is_fixed(settings.payload):
        same = "with one payload for all pings: leave payload out, or put ${seq} into it"
        if settings.timeout > settings.interval:
            yield "timeout", f"must not be above interval {same}"
        if settings.misses > 1:
            yield "misses", f"must not be above 1 {same}"
