from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.retry_after import retry_after_ns

S = 1_000_000_000
HOUR = 3600 * S
NOW = 1_800_000_000 * S  # 2027-01-15 08:00:00 UTC, a Friday
NOW_DATE = datetime(2027, 1, 15, 8, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "wait_ns"),
    [
        ("0", 0),
        ("5", 5 * S),
        ("  7 ", 7 * S),
        ("007", 7 * S),
        ("1.5", 1_500_000_000),
        ("0.0000000001", 1),  # rounded up: never too early
        ("3600", HOUR),
        ("3601", HOUR),
        ("1000000000", HOUR),  # exactly 1e9 is still a delay
    ],
)
def test_seconds_are_a_delay(value, wait_ns):
    assert retry_after_ns(value, NOW) == wait_ns


@pytest.mark.parametrize(
    ("value", "wait_ns"),
    [
        ("1800000030", 30 * S),
        ("1800000030.25", 30 * S + 250_000_000),
        ("1800000030250", 30 * S + 250_000_000),
        ("1799999999", 0),
        ("1799999999999", 0),
        ("1000000001", 0),
        ("1900000000", HOUR),
    ],
)
def test_large_numbers_are_a_moment_in_seconds_or_milliseconds(value, wait_ns):
    assert retry_after_ns(value, NOW) == wait_ns


@pytest.mark.parametrize(
    ("value", "wait_ns"),
    [
        ("Fri, 15 Jan 2027 08:00:10 GMT", 10 * S),
        ("Friday, 15-Jan-27 08:00:10 GMT", 10 * S),
        ("Fri Jan 15 08:00:10 2027", 10 * S),
        ("fri, 15 jan 2027 08:00:10 gmt", 10 * S),
        ("Fri, 15 Jan 2027 09:00:10 +0100", 10 * S),
        ("Fri, 15 Jan 2027 07:59:59 GMT", 0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Sat, 16 Jan 2027 08:00:00 GMT", HOUR),
    ],
)
def test_all_three_forms_of_an_http_date_are_understood(value, wait_ns):
    assert retry_after_ns(value, NOW) == wait_ns


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "-1",
        "+1",
        "nan",
        "inf",
        "1e3",
        "0x10",
        "1,5",
        "5 s",
        "1.",
        ".5",
        "1_000",
        "٣",  # a digit to str.isdigit and int
        "soon",
        "1 2 3",
        "15 Jan 2027 08:00:10",
        "Fri, 15 Jan 2027",
        "Fri, 99 Jan 2027 08:00:10 GMT",
        "Fri, 15 Jan 2027 99:99:99 GMT",
        "9" * 65,
        "1" * 1_000_000,
    ],
)
def test_anything_else_says_nothing(value):
    assert retry_after_ns(value, NOW) is None


def test_the_limit_is_the_callers():
    assert retry_after_ns("100", NOW, limit_ns=3 * S) == 3 * S
    assert retry_after_ns("9" * 64, NOW) == HOUR


@given(st.integers(0, 3600))
def test_a_date_so_many_seconds_ahead_waits_so_long(seconds):
    text = format_datetime(NOW_DATE + timedelta(seconds=seconds), usegmt=True)
    assert retry_after_ns(text, NOW) == seconds * S


PARTS = ["Sun,", "Sunday,", "Fri", "15", "0", "99", "Jan", "15-Jan-27", "1994", "99999"]
PARTS += ["08:00:10", "0:0:0", "99:99:99", "GMT", "+9999", "-0000", "EST", ".", ",", "(", ")", '"']
DATE_LIKE = st.lists(st.sampled_from(PARTS) | st.text(max_size=4), max_size=8).map(" ".join)


@given(st.text() | DATE_LIKE | st.floats().map(str) | st.integers().map(str))
@example("Mon, 01 Jan 0001 00:00:00 +9999")
@example("Fri, 31 Dec 9999 23:59:59 -2400")
@example("Mon, 1 Jan 00000000000000001 00:00:00 GMT")
@example("Mon, 1 Jan 2027 00:00:00 +99999999999999999999")
def test_no_text_ever_raises_or_leaves_the_bounds(text):
    wait_ns = retry_after_ns(text, NOW)
    assert wait_ns is None or 0 <= wait_ns <= HOUR
