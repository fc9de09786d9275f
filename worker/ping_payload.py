"""Ping payload: the template of a ping's body, filled for each ping, and how long it can get.

Pure.
"""

import re
import string
from collections.abc import Callable

BODY_MAX = 125  # bytes of a PING frame's body, RFC 6455 section 5.5
# Longest text of each field: a UUID, and integers of 64 bits.
LONGEST = {"seq": "9" * 20, "ts_s": "9" * 20, "ts_ms": "9" * 20, "uuid": "u" * 36}
FIELDS = tuple(f"${{{name}}}" for name in LONGEST)
_ANY_FIELD = re.compile(r"\$\{[^}]*\}?")


def filled(template: bytes, seq: int, ts_ms: int, uuid: Callable[[], str]) -> bytes:
    """
    Return the payload of one ping.

    Args:
        template: Holds ``${seq}``, ``${ts_s}``, ``${ts_ms}``, ``${uuid}``, or none of them; bytes
            that are no UTF-8 stay as they are.
        seq: Number of the ping in its session.
        ts_ms: CLOCK_REALTIME milliseconds.
        uuid: Gives a fresh UUID; called only if the template asks.

    """
    if b"${" not in template:
        return template
    fields = {"seq": str(seq), "ts_ms": str(ts_ms), "ts_s": str(ts_ms // 1000)}
    if b"${uuid}" in template:
        fields["uuid"] = uuid()
    return _substituted(template, fields)


def longest(template: bytes) -> int:
    """Return how many bytes a payload has with its fields at their longest."""
    return len(_substituted(template, LONGEST) if b"${" in template else template)


def fault_of(template: bytes) -> str:
    """Return what is wrong with the fields of a template, "" if nothing."""
    for field in _ANY_FIELD.findall(template.decode("utf-8", "surrogateescape")):
        if field not in FIELDS:
            return f"holds {field}, which is no field; there are {', '.join(FIELDS)}"
    return ""


def is_fixed(template: bytes) -> bool:
    """Return whether all pings are the same, so that their pongs cannot be told apart."""
    return not any(b"${%s}" % name.encode() in template for name in LONGEST)


def _substituted(template: bytes, fields: dict[str, str]) -> bytes:
    text = string.Template(template.decode("utf-8", "surrogateescape"))
    return text.safe_substitute(fields).encode("utf-8", "surrogateescape")
