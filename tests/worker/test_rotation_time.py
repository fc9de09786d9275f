import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from worker.rotation_time import due_ns
from worker.spec import DAY_NS, RotateSpec, Window

HOUR, MINUTE = 3600 * 10**9, 60 * 10**9
MIDNIGHT = 20_000 * DAY_NS
WINDOW = Window(opens_ns=2 * HOUR, closes_ns=4 * HOUR)


def due(born_ns, draw=0.0, **keys):
    keys = {"max_age_ns": 23 * HOUR, "window": WINDOW, "jitter_ns": 20 * MINUTE} | keys
    moment = due_ns(RotateSpec(**keys), MIDNIGHT + born_ns, draw)
    return None if moment is None else (moment - MIDNIGHT) / HOUR


def test_without_an_age_a_session_is_never_replaced_by_itself():
    assert due(0, max_age_ns=0) is None


def test_without_a_window_it_is_replaced_at_its_age_less_the_jitter():
    assert due(10 * HOUR, window=None) == 33
    assert due(10 * HOUR, 0.5, window=None) == pytest.approx(33 - 1 / 6)


def test_a_day_s_session_is_replaced_at_the_end_of_the_last_window_in_reach():
    assert due(10 * HOUR) == 28, "04:00"
    assert due(10 * HOUR, 0.75) == 28 - 0.25


def test_an_age_that_ends_within_the_window_is_used_up():
    assert due(3.5 * HOUR) == 26.5


def test_of_two_hours_and_an_age_of_23_no_session_gets_older_nor_is_replaced_elsewhere():
    born, found = 2.75 * HOUR, []
    for _ in range(6):
        found.append(due(born, 0.5))
        born = found[-1] * HOUR
    hours = [moment % 24 for moment in found]
    assert all(2 <= hour < 4 for hour in hours), hours


def test_a_window_out_of_reach_does_not_let_a_session_grow_older():
    assert due(5 * HOUR, max_age_ns=12 * HOUR) == 17
    assert due(3.8 * HOUR, max_age_ns=12 * HOUR) == 15.8, "the rest of its own window is no help"


def test_a_window_may_go_over_midnight():
    night = Window(opens_ns=23 * HOUR, closes_ns=1 * HOUR)
    assert due(12 * HOUR, window=night) == 25
    assert due(24.5 * HOUR, window=night) == 47.5, "its age ends in the next one"


spans = st.integers(0, 24 * 60 - 1).map(lambda minutes: minutes * MINUTE)


@settings(deadline=None)
@given(
    spans,
    spans,
    spans,
    st.integers(60, 48 * 60).map(lambda minutes: minutes * MINUTE),
    st.floats(0, 1, exclude_max=True),
)
def test_it_is_always_after_birth_never_over_age_and_within_the_window_if_that_can_be(
    born, opens, closes, max_age, draw
):
    assume(opens != closes)
    jitter = 10 * MINUTE
    spec = RotateSpec(
        max_age_ns=max_age,
        window=Window(opens_ns=opens, closes_ns=closes),
        jitter_ns=jitter,
    )
    moment = due_ns(spec, MIDNIGHT + born, draw) - MIDNIGHT
    assert born < moment <= born + max_age
    length = (closes - opens) % DAY_NS
    is_within = (moment - opens) % DAY_NS <= length
    a_whole_window_is_in_reach = (opens - born - 1) % DAY_NS + 1 + length + jitter <= max_age
    assert is_within or not a_whole_window_is_in_reach
