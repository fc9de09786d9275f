from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from worker.overlap import ENTRY_BYTES, Overlap

MIB = 1 << 20
SECOND = 10**9


def item(payload, at_ns=0):
    return (payload, True, at_ns, 0)


def overlap(*, bytes_max=MIB, window_ns=SECOND, hold=False):
    """A stream on side 0 that side 1 joins."""
    made = Overlap(bytes_max, window_ns)
    made.join(0, 0, hold=False)
    made.join(1, 0, hold=hold)
    return made


def fed(made, arrivals):
    """Feed (side, payload), a nanosecond apart; return the payloads delivered."""
    delivered = []
    for at_ns, (side, payload) in enumerate(arrivals, 1):
        delivered += made.arrived(side, payload, item(payload, at_ns))
    return [payload for payload, *_ in delivered]


def test_of_two_sessions_that_bring_the_same_each_message_is_delivered_once():
    made = overlap()
    assert fed(made, [(0, b"a"), (1, b"a"), (1, b"b"), (0, b"b"), (0, b"c")]) == [b"a", b"b", b"c"]
    assert made.duplicates == 2


def test_a_repeat_within_one_session_is_never_dropped():
    made = overlap()
    fed(made, [(1, b"first"), (0, b"first")])
    assert fed(made, [(0, b"a"), (0, b"a"), (0, b"a"), (1, b"a")]) == [b"a"] * 3
    assert fed(made, [(1, b"a"), (1, b"a"), (1, b"a")]) == [b"a"], "one more than side 0 had"


arrivals = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([b"a", b"b", b"c"])), max_size=60)


def counts_of(found):
    """The most that one side brought, by payload."""
    one, two = (Counter(payload for side, payload in found if side == number) for number in (0, 1))
    return one | two


@settings(deadline=None)
@given(arrivals, st.booleans())
def test_no_session_s_repeats_are_dropped_whatever_the_other_brings(found, hold):
    made = overlap(hold=hold)
    delivered = Counter(fed(made, found))
    delivered.update(payload for payload, *_ in made.release())
    assert delivered >= counts_of(found)
    assert len(found) - delivered.total() == made.duplicates


@settings(deadline=None)
@given(arrivals, st.booleans())
def test_once_both_bring_data_it_is_as_often_as_the_session_that_had_it_more_often(found, hold):
    made = overlap(hold=hold)
    found = [(1, b"first"), (0, b"first"), *found]
    delivered = Counter(fed(made, found))
    delivered.update(payload for payload, *_ in made.release())
    assert delivered == counts_of(found)


@settings(deadline=None)
@example(texts=2, period=51, ahead=2, phase=0, every=6)
@given(
    st.integers(1, 3),
    st.integers(1, 90),
    st.integers(-40, 40),
    st.integers(0, 99),
    st.integers(5, 60),
)
def test_texts_that_come_again_and_again_are_not_lost_when_a_session_ends(
    texts, period, ahead, phase, every
):
    """Texts in turn, one in so many numbered: what came before the second stream is not owed."""
    window, hold = 100, 200
    joins, leaves, ends = 1000 + 4 * window + phase, 2200, 3200
    said = [
        (at, b"n%d" % index if index % every == 0 else b"%d" % (index % texts))
        for index, at in enumerate(range(1000, ends, period))
    ]
    heard = [(at, 1, 0, text) for at, text in said if at < leaves]
    heard += [(at - ahead, 1, 1, text) for at, text in said if at - ahead >= joins]
    heard += [(joins, 0, "join", None), (leaves, 0, "leave", None)]
    heard += [(at, 2, "time", None) for at in range(1000, ends, 10)]
    made = Overlap(MIB, window, hold)
    made.join(0, 0, hold=False)
    delivered = []
    for at, _order, side, text in sorted(heard, key=lambda fact: fact[:2]):
        match side:
            case "join":
                made.join(1, at, hold=True)
            case "leave":
                delivered += made.leave(0)
            case "time":
                delivered += made.expire(at)
            case _:
                delivered += made.arrived(side, text, item(text, at))
    found, wanted = Counter(text for text, *_ in delivered), Counter(text for _at, text in said)
    assert found >= wanted
    has_met = period * every <= hold and period > 1
    in_hold = (hold + 10 + 2 * abs(ahead)) // period + 2 * texts
    assert (found - wanted).total() <= (0 if has_met else in_hold)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=40), st.data())
def test_two_orderly_streams_make_one_in_that_order_whoever_is_ahead(numbers, data):
    stream = [b"%d/%d" % (index, number) for index, number in enumerate(numbers)]
    begins = data.draw(st.integers(0, len(stream)))  # the second one joins here
    queues = [list(stream), stream[begins:]]
    made, delivered, at_ns = overlap(hold=True), [], 0
    while any(queues):
        side = data.draw(st.sampled_from([side for side in (0, 1) if queues[side]]))
        at_ns += 1
        payload = queues[side].pop(0)
        delivered += made.arrived(side, payload, item(payload, at_ns))
    delivered += made.release()
    assert [payload for payload, *_ in delivered] == stream
    assert made.unmatched == 0


@settings(deadline=None)
@given(arrivals, st.integers(0, 3000))
def test_with_too_little_memory_messages_are_doubled_and_counted_but_never_lost(found, bytes_max):
    made = overlap(bytes_max=bytes_max, hold=True)
    found = [(1, b"first"), (0, b"first"), *found]
    delivered = Counter(fed(made, found))
    delivered.update(payload for payload, *_ in made.release())
    wanted = counts_of(found)
    assert delivered >= wanted
    assert (delivered - wanted).total() <= made.overflows
    assert made._bytes <= bytes_max or not any(side.waiting for side in made.sides)


def test_what_a_joining_session_brings_is_delivered_where_the_streams_meet():
    made = overlap(hold=True)
    found = [(1, b"hello"), (1, b"5"), (1, b"6"), (0, b"3"), (0, b"4"), (0, b"5"), (0, b"6")]
    assert fed(made, found) == [b"3", b"4", b"hello", b"5", b"6"]
    assert not made.release()
    made = overlap(hold=True)
    found = [(0, b"3"), (0, b"4"), (1, b"hello"), (1, b"4"), (1, b"5"), (0, b"5")]
    assert fed(made, found) == [b"3", b"4", b"hello", b"5"]


def test_when_the_other_session_ends_what_was_held_back_is_delivered_at_once():
    made = overlap(hold=True)
    assert fed(made, [(0, b"1"), (1, b"2"), (1, b"3")]) == [b"1"]
    assert [payload for payload, *_ in made.leave(0)] == [b"2", b"3"]
    assert fed(made, [(1, b"3"), (1, b"4")]) == [b"3", b"4"]


def test_after_its_end_what_a_session_was_ahead_by_is_still_left_out():
    made = overlap()
    fed(made, [(0, b"1"), (1, b"1"), (0, b"2"), (0, b"3")])
    assert not made.leave(0)
    assert fed(made, [(1, b"2"), (1, b"3"), (1, b"4")]) == [b"4"]
    assert not made.sides[0].waiting
    assert made.duplicates == 3


def test_a_session_that_comes_back_owes_nothing_of_before():
    made = overlap()
    fed(made, [(0, b"tick"), (1, b"tick"), (0, b"tick")])
    made.leave(1)
    made.join(1, 100, hold=False)
    assert fed(made, [(1, b"tick")]) == [b"tick"], "not taken for the one of its former session"


def test_a_message_is_forgotten_after_the_window():
    made = overlap(window_ns=10)
    made.arrived(0, b"a", item(b"a", 1))
    made.arrived(0, b"b", item(b"b", 15))
    made.expire(20)
    assert made.arrived(1, b"a", item(b"a", 21)) != ()
    assert made.arrived(1, b"b", item(b"b", 22)) == ()


def test_what_came_before_a_pause_of_ours_still_has_its_twin_after_it():
    made = overlap(window_ns=10)
    made.arrived(0, b"a", item(b"a", 1))
    made.arrived(1, b"a", item(b"a", 2))
    made.arrived(0, b"b", item(b"b", 3))
    made.stood(1000)
    made.expire(1005)
    assert made.arrived(1, b"b", item(b"b", 1006)) == ()
    assert (made.duplicates, made.unmatched) == (2, 0)


def test_unmatched_are_counted_where_both_brought_messages_and_nowhere_else():
    made = overlap()
    both = [(0, b"1"), (1, b"snapshot"), (1, b"1"), (0, b"only"), (0, b"2"), (1, b"2")]
    fed(made, [(0, b"before"), *both, (1, b"ahead")])
    made.leave(0)
    made.leave(1)
    assert made.unmatched == 2, "snapshot and only"


def test_without_any_match_all_of_the_time_in_common_is_unmatched():
    made = overlap(hold=True)
    fed(made, [(0, b"before"), (1, b"1'"), (0, b"2"), (1, b"2'")])
    made.leave(0)
    made.leave(1)
    assert made.unmatched == 3


def test_wins_and_lag_tell_which_side_was_first_and_by_how_much():
    made = overlap()
    made.arrived(0, b"a", item(b"a", 100))
    made.arrived(1, b"a", item(b"a", 6500))
    assert (made.sides[0].wins, made.sides[1].wins) == (1, 0)
    assert (made.sides[1].lag_ns, made.sides[1].lag_mean_ns) == (6400, 100)


@pytest.mark.parametrize("count", [1, 3])
def test_memory_is_given_back(count):
    made = overlap()
    fed(made, [(1, b"first"), (0, b"first")])
    for at_ns in range(1, count + 1):
        made.arrived(0, b"a", item(b"a", at_ns))
    assert made._bytes == count * (1 + ENTRY_BYTES)
    for at_ns in range(1, count + 1):
        made.arrived(1, b"a", item(b"a", at_ns))
    assert made._bytes == 0
