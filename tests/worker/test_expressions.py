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


def test_the_library_refuses_the_same():
    with pytest.raises(ValueError, match="pong_matcher is no usable JMESPath"):
        HeartbeatConfig(
            use_ws_ping=False,
            use_application_ping=True,
            payload=b"ping",
            pong_matcher="!" * 3000 + "a",
        )
