"""Retry-After: how long an exchange asks us to stay away. A small calculator.

Pure. RFC 9110 section 10.2.3 knows seconds and an HTTP-date; exchanges also send decimals, and a
moment as unix time, in seconds or milliseconds. The header comes from outside: no text raises.
"""

import math
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from fractions import Fraction

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TEXT_LIMIT = 64  # characters; the longest HTTP-date has 33
UNIX_S = 10**9  # a number beyond is a moment: as a delay it would be 31 years
UNIX_MS = 10**12  # beyond this the moment is in milliseconds

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
# email.utils reads much that is no date; all three forms of RFC 9110 section 5.6.7 look like this.
_DATE = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? .*\d\d:\d\d:\d\d", re.ASCII | re.I)


def retry_after_ns(value: str, now_wall_ns: int, limit_ns: int = 3_600_000_000_000) -> int | None:
    """
    Return how many ns from now to wait, of [0, ``limit_ns``]; ``None`` if the text says nothing.

    Args:
        value: The header's value.
        now_wall_ns: CLOCK_REALTIME in ns, for the forms that name a moment.
        limit_ns: The longest wait that is believed, in ns.

    """
    text = value.strip()
    if len(text) > TEXT_LIMIT:
        return None
    if _NUMBER.fullmatch(text):
        wait_ns = _of_number(Fraction(text), now_wall_ns)
    elif _DATE.match(text):
        moment_ns = _unix_ns(text)
        if moment_ns is None:
            return None
        wait_ns = moment_ns - now_wall_ns
    else:
        return None
    return max(0, min(wait_ns, limit_ns))


def _of_number(number: Fraction, now_wall_ns: int) -> int:
    # Rounded up: a nanosecond early is too early.
    if number > UNIX_MS:
        return math.ceil(number * NS_PER_MS) - now_wall_ns
    if number > UNIX_S:
        return math.ceil(number * NS_PER_S) - now_wall_ns
    return math.ceil(number * NS_PER_S)


def _unix_ns(text: str) -> int | None:
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # the form of asctime(3) has no zone; all HTTP-dates are GMT
            moment = moment.replace(tzinfo=UTC)
        return (moment - EPOCH) // timedelta(microseconds=1) * NS_PER_US
    except (ValueError, TypeError, LookupError, ArithmeticError):
        return None  # email.utils promises ValueError only, and does not keep to it
