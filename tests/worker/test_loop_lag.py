import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.loop_lag import STEP_NS, LoopLag

MS = STEP_NS


def test_a_loop_that_never_stood_has_no_lag():
    lag = LoopLag()
    assert lag.since(0) == 0
    lag.note(100 * MS, 0)
    lag.note(200 * MS, MS - 1)
    assert lag.since(0) == 0


def test_a_pause_counts_by_the_moment_it_ended():
    lag = LoopLag()
    lag.note(100 * MS, 70 * MS)
    lag.note(200 * MS, 20 * MS)
    assert [lag.since(moment * MS) for moment in (0, 99, 100, 199, 200)] == [
        70 * MS, 70 * MS, 20 * MS, 20 * MS, 0,
    ]  # fmt: skip
    assert lag.since(0) == 70 * MS, "asking forgets nothing"


@given(st.lists(st.integers(0, 50)), st.integers(-1, 60))
def test_the_worst_since_any_moment_is_the_longest_of_all_that_ended_after(lags, since):
    lag = LoopLag()
    for moment, length in enumerate(lags):
        lag.note(moment, length * MS)
    assert lag.since(since) == max((n * MS for n in lags[max(0, since + 1) :]), default=0)


@pytest.mark.parametrize("lags", [range(1, 1000), [5] * 1000])
def test_what_can_be_no_answer_any_more_is_forgotten(lags):
    lag = LoopLag()
    for moment, length in enumerate(lags):
        lag.note(moment, length * MS)
    assert len(lag._pauses) == 1
