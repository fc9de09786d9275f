from hypothesis import given
from hypothesis import strategies as st

from worker.backoff import Backoff
from worker.spec import SECOND_NS, ReconnectSpec

SPEC = ReconnectSpec()
BELOW_ONE = 0.999999


def test_ceilings_double_up_to_the_longest_delay():
    backoff = Backoff(SPEC)
    delays = [backoff.next_delay_ns(0, BELOW_ONE) / SECOND_NS for _ in range(12)]
    assert [round(delay, 2) for delay in delays[:4]] == [0.1, 0.2, 0.4, 0.8]
    assert round(delays[-1], 2) == 30


def test_a_stable_session_is_redialled_at_once_but_keeps_its_place():
    backoff = Backoff(SPEC)
    for _ in range(5):
        backoff.next_delay_ns(0, 0.5)
    assert backoff.next_delay_ns(SPEC.stable_after_ns, BELOW_ONE) == 0
    assert backoff.next_delay_ns(0, BELOW_ONE) > 5 * SECOND_NS


def test_only_a_long_session_resets():
    backoff = Backoff(SPEC)
    for _ in range(8):
        backoff.next_delay_ns(SPEC.stable_after_ns - 1, 0.5)
    backoff.next_delay_ns(SPEC.reset_after_ns, 0.5)
    assert backoff.attempt == 1


def test_failed_dials_back_off_even_if_any_session_would_reset():
    backoff = Backoff(ReconnectSpec(reset_after_ns=0))
    delays = [backoff.next_delay_ns(0, BELOW_ONE) for _ in range(4)]
    assert delays == sorted(set(delays))


def test_a_refusal_that_will_not_pass_waits_longest_whatever_the_draw():
    assert Backoff(SPEC).next_delay_ns(0, 0.0, hammering=True) == SPEC.max_delay_ns


def test_refusals_are_the_known_ones_and_those_of_the_spec():
    backoff = Backoff(ReconnectSpec(refusals=(4009,)))
    assert all(backoff.is_refusal(status, None) for status in (401, 403, 404, 410))
    assert all(backoff.is_refusal(None, code) for code in (1008, 4401, 4403, 4009))
    assert not any(backoff.is_refusal(status, None) for status in (None, 429, 503))
    assert not any(backoff.is_refusal(None, code) for code in (1000, 1001, 1006))


@given(st.lists(st.tuples(st.integers(0, 10**12), st.floats(0, 1, exclude_max=True)), max_size=80))
def test_no_delay_leaves_its_bounds(lives):
    backoff = Backoff(SPEC)
    for up_ns, draw in lives:
        assert 0 <= backoff.next_delay_ns(up_ns, draw) <= SPEC.max_delay_ns
