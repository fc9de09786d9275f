"""Durations and sizes as an operator writes them: numbers, or numbers with a unit.

Durations become nanoseconds and sizes bytes on the way in, and stay so.
"""

import math
import re
import reprlib
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

UNITS_NS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
}
UNITS_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 10**3, "MB": 10**6}
DURATION_NS_MAX = 366 * UNITS_NS["d"]
_NUMBER_WITH_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*")
_TIME = r"([01][0-9]|2[0-3]):([0-5][0-9])"
_WINDOW = re.compile(rf"\s*{_TIME}\s*-\s*{_TIME}(?:\s+UTC)?\s*")
SHOWN_MAX = 80

CPU_MAX = 8191  # CONFIG_NR_CPUS at its largest


def shown(value: object) -> str:
    """Return a value for a message: short, whatever it is."""
    try:
        return reprlib.repr(value)[:SHOWN_MAX]
    except (ValueError, RecursionError):  # repr of an integer of more than 4,300 digits
        return "a value too long to show"


def duration_ns(value: object) -> int:
    """
    Return a duration in nanoseconds: seconds as a number, or text such as "250ms".

    Raises:
        ValueError: If it is neither, not above zero, or longer than a year.

    """
    wanted = 'a duration above zero: seconds as a number, or "250ms", "20s", "23h"'
    nanoseconds: float
    if isinstance(value, str):
        found = _NUMBER_WITH_UNIT.fullmatch(value)
        if found is None or found[2] not in UNITS_NS:
            raise ValueError(f"expected {wanted}, got {shown(value)}")
        nanoseconds = float(found[1]) * UNITS_NS[found[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            nanoseconds = value * 1e9
        except OverflowError:  # an integer beyond any float
            nanoseconds = math.inf
    else:
        raise ValueError(f"expected {wanted}, got {shown(value)}")
    if not math.isfinite(nanoseconds) or not 0 < nanoseconds <= DURATION_NS_MAX:
        limit = ", at most 366 days" if nanoseconds > DURATION_NS_MAX else ""
        raise ValueError(f"expected {wanted}{limit}, got {shown(value)}")
    return max(1, round(nanoseconds))


def duration_or_zero_ns(value: object) -> int:
    """Return a duration in nanoseconds, 0 allowed."""
    if not isinstance(value, bool) and isinstance(value, int | float | str) and value in (0, "0"):
        return 0
    return duration_ns(value)


def window_ns(value: object) -> tuple[int, int]:
    """
    Return opening and closing of a part of the day, nanoseconds from midnight UTC.

    Raises:
        ValueError: If it is none, such as "02:00-04:00", or not open at all.

    """
    found = _WINDOW.fullmatch(value) if isinstance(value, str) else None
    if found is not None:
        hours = [
            int(hour) * UNITS_NS["h"] + int(minute) * UNITS_NS["m"]
            for hour, minute in (found.group(1, 2), found.group(3, 4))
        ]
        if hours[0] != hours[1]:
            return hours[0], hours[1]
    raise ValueError(
        f'expected a part of the day in UTC, such as "02:00-04:00", got {shown(value)}'
    )


def size_bytes(value: object) -> int:
    """
    Return a size in bytes: a whole number, or text such as "8MiB".

    Raises:
        ValueError: If it is neither, or not above zero.

    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if isinstance(value, str):
        found = _NUMBER_WITH_UNIT.fullmatch(value)
        if found is not None and found[2] in UNITS_BYTES:
            size = float(found[1]) * UNITS_BYTES[found[2]]
            if math.isfinite(size) and round(size) > 0:
                return round(size)
    raise ValueError(
        f'expected a size above zero: bytes as a whole number, or "8MiB"; got {shown(value)}'
    )


def size_or_zero_bytes(value: object) -> int:
    """Return a size in bytes, 0 allowed."""
    if not isinstance(value, bool) and isinstance(value, int | str) and value in (0, "0"):
        return 0
    return size_bytes(value)


def cpu_numbers(value: object) -> tuple[int, ...]:
    """
    Return the CPUs of one number or a list of them.

    Raises:
        ValueError: If it is neither, or none, or a number no CPU has.

    """
    numbers = value if isinstance(value, list) else [value]
    found = [item for item in numbers if isinstance(item, int) and not isinstance(item, bool)]
    if not numbers or len(found) < len(numbers) or not all(0 <= cpu <= CPU_MAX for cpu in found):
        raise ValueError(f"expected the number of a CPU or a list of them, got {shown(value)}")
    return tuple(sorted(set(found)))


_CPUS_SCHEMA = {"type": ["integer", "array"], "items": {"type": "integer"}}
Cpus = Annotated[tuple[int, ...], BeforeValidator(cpu_numbers), WithJsonSchema(_CPUS_SCHEMA)]
_DURATION_SCHEMA = {"type": ["number", "string"], "description": 'seconds, or "250ms", "20s"'}
Duration = Annotated[int, BeforeValidator(duration_ns), WithJsonSchema(_DURATION_SCHEMA)]
DurationOrZero = Annotated[
    int, BeforeValidator(duration_or_zero_ns), WithJsonSchema(_DURATION_SCHEMA)
]
_WINDOW_SCHEMA = {"type": "string", "description": '"02:00-04:00", UTC'}
Window = Annotated[tuple[int, int], BeforeValidator(window_ns), WithJsonSchema(_WINDOW_SCHEMA)]
_SIZE_SCHEMA = {"type": ["integer", "string"], "description": 'bytes, or "8MiB"'}
Size = Annotated[
    int,
    BeforeValidator(size_bytes),
    WithJsonSchema(_SIZE_SCHEMA),
]
SizeOrZero = Annotated[int, BeforeValidator(size_or_zero_bytes), WithJsonSchema(_SIZE_SCHEMA)]
