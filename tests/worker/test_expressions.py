"""That every matcher of fleet.toml is checked so: tests/supervisor/test_fleet_relations.py."""

import pytest

from worker import HeartbeatConfig
from worker.expressions import NESTED_MAX, fault_of


@pytest.mark.parametrize("good", ["op", "op == 'pong' || ret_msg == 'pong'", "a[0].b", "`1`"])
def test_an_expression_has_no_fault(good):
    assert fault_of(good) == ""


def test_a_fault_has_its_position():
    assert "at position" in fault_of("op == 'a' ||")


@pytest.mark.parametrize(
    "deep", ["(" * 101 + "a" + ")" * 101, "!" * 3000 + "a", "|".join("a" * 500)]
)
def test_what_would_exhaust_its_reader_is_refused(deep):
    assert f"deeper than {NESTED_MAX}" in fault_of(deep)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("op == 'x' && nofunc(op)", "at position 13: there is no function nofunc()"),
        ("nofunc == `1` || nofunc (a)", "at position 17: there is no function nofunc()"),
        ("contains(op)", "at position 0: contains() takes 2, got 1"),
        ("a[?length(@, @) == `1`]", "at position 3: length() takes 1, got 2"),
        ("merge()", "at position 0: merge() takes at least 1, got 0"),
    ],
)
def test_a_call_that_would_raise_at_every_message_is_a_fault_with_its_position(bad, why):
    assert fault_of(bad) == f"is no usable JMESPath expression {why}"


@pytest.mark.parametrize(
    "good", ["contains(op, 'x')", "sort_by(a, &b)[0]", "merge(a, b, c)", "length(keys(@)) > `1`"]
)
def test_calls_as_they_should_be_have_no_fault(good):
    assert fault_of(good) == ""


def test_the_library_refuses_the_same():
    with pytest.raises(ValueError, match="pong_matcher is no usable JMESPath"):
        HeartbeatConfig(
            use_ws_ping=False,
            use_application_ping=True,
            payload=b"ping",
            pong_matcher="!" * 3000 + "a",
        )
