"""Turns of replacements, with integers for time."""

from hypothesis import given
from hypothesis import strategies as st

from supervisor.pace import BURST, CALM_NS, TURN_NS, Pace, Storm


def test_single_deaths_wait_for_nothing_and_are_no_storm():
    pace = Pace()
    for number in range(1000):
        assert pace.turn(number * TURN_NS) == number * TURN_NS
    assert pace.news() is None


def test_a_storm_is_told_once_until_it_has_been_calm():
    pace = Pace()
    for _ in range(BURST + 3):
        pace.turn(0)
    assert pace.news() == Storm(3)
    assert pace.news() is None
    for _ in range(BURST + 3):
        pace.turn(CALM_NS - 1)
    assert pace.news() is None
    for _ in range(BURST + 1):
        pace.turn(2 * CALM_NS)
    assert pace.news() == Storm(1)


@given(st.lists(st.integers(0, 5 * TURN_NS), min_size=1, max_size=80))
def test_no_more_than_a_burst_comes_together_and_nobody_waits_longer_than_for_those_before(gaps):
    pace, now_ns, turns = Pace(), 0, []
    for gap_ns in gaps:
        now_ns += gap_ns
        turns.append(pace.turn(now_ns))
        assert now_ns <= turns[-1] <= now_ns + len(turns) * TURN_NS
    assert turns == sorted(turns)
    for first, last in zip(turns, turns[BURST:], strict=False):
        assert last - first >= TURN_NS
