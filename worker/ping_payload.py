"""Ping payload: the template of a ping's body, filled for each ping, and how long it can get.

Pure.
"""

from collections.abc import Callable, Mapping

from worker import template

BODY_MAX = 125  # bytes of a PING frame's body, RFC 6455 section 5.5
# Longest text of each field: integers of 64 bits, and a UUID.
LONGEST = {"seq": "9" * 20, "ts_s": "9" * 20, "ts_ms": "9" * 20, "uuid": "u" * 36}


def filled(payload: bytes, seq: int, ts_ms: int, uuid: Callable[[], str]) -> bytes:
    """
    Return the payload of one ping.

    Args:
        payload: Holds ``${seq}``, ``${ts_s}``, ``${ts_ms}``, ``${uuid}``, or none of them; bytes
            that are no UTF-8 stay as they are.
        seq: Number of the ping in its session.
        ts_ms: CLOCK_REALTIME milliseconds.
        uuid: Gives a fresh UUID; called only if the payload asks.

    """
    if b"${" not in payload:
        return payload
    fields = {"seq": str(seq), "ts_ms": str(ts_ms), "ts_s": str(ts_ms // 1000)}
    if b"${uuid}" in payload:
        fields["uuid"] = uuid()
    return _filled(payload, fields)


def longest(payload: bytes) -> int:
    """Return how many bytes a payload has with its fields at their longest."""
    return len(_filled(payload, LONGEST))


def is_fixed(payload: bytes) -> bool:
    """Return whether all pings are the same, so that their pongs cannot be told apart."""
    return not template.fields_of(_text(payload)) & LONGEST.keys()


def fault_of(payload: bytes) -> str:
    """Return what is wrong with the fields of a payload, "" if nothing."""
    return template.fault_of(_text(payload), LONGEST)


def _filled(payload: bytes, fields: Mapping[str, str]) -> bytes:
    return template.fill(_text(payload), fields).encode("utf-8", "surrogateescape")


def _text(payload: bytes) -> str:
    return payload.decode("utf-8", "surrogateescape")
