from hypothesis import given, settings
from hypothesis import strategies as st

from worker.announcement import Cause
from worker.spec import SECOND_NS, RotateSpec
from worker.turns import TRANSITIONS, Down, Fed, Finish, Renew, State, Tick, Turns, Up, Wanted

HOUR = 3600 * SECOND_NS


def both(max_age_ns=HOUR, apart=10):
    turns = Turns(RotateSpec(max_age_ns=max_age_ns))
    for side in (0, 1):
        turns.handle(1 + side * apart, Up(side, 0, 0.0))
        turns.handle(1 + side * apart, Fed(side))
    return turns


def test_the_states_are_two():
    assert set(TRANSITIONS) == set(State)


def test_ordered_one_is_replaced_after_the_other_each_once_the_other_carries():
    turns = both()
    assert turns.handle(20, Wanted(Cause.OPERATOR)) == (Renew(0, Cause.OPERATOR),)
    assert turns.handle(21, Down(0)) == ()
    assert turns.handle(22, Up(0, 0, 0.0)) == ()
    assert turns.handle(23, Fed(0)) == (Finish(0),)
    assert turns.handle(24, Tick()) == (Renew(1, Cause.OPERATOR),)
    for event in (Down(1), Up(1, 0, 0.0)):
        assert turns.handle(25, event) == ()
    assert turns.handle(26, Fed(1)) == (Finish(1),)
    assert turns.handle(27, Tick()) == ()


def test_each_is_replaced_at_its_own_age():
    turns = both()
    assert turns.deadline_ns == 1 + HOUR
    assert turns.handle(1 + HOUR, Tick()) == (Renew(0, Cause.MAX_AGE),)
    assert turns.deadline_ns is None, "while one is replaced the other stays"


def test_while_the_other_carries_nothing_a_session_stays_whatever_its_age():
    turns = both()
    turns.handle(20, Down(1))
    assert turns.deadline_ns is None
    assert turns.handle(2 * HOUR, Tick()) == ()
    turns.handle(2 * HOUR, Up(1, 0, 0.0))
    assert turns.handle(2 * HOUR, Fed(1)) == (Renew(0, Cause.MAX_AGE),)


def test_an_age_that_is_wanted_later_is_that_of_the_sessions_there_are():
    turns = both(max_age_ns=0)
    assert turns.deadline_ns is None
    turns.adjust(RotateSpec(max_age_ns=HOUR))
    assert turns.deadline_ns == 1 + HOUR


def test_a_notice_is_of_the_session_that_heard_it():
    turns = both()
    assert turns.handle(20, Wanted(Cause.NOTICE, 1)) == (Renew(1, Cause.NOTICE),)


sides = st.integers(0, 1)
events = st.one_of(
    st.builds(Up, sides, st.just(0), st.just(0.5)),
    st.builds(Fed, sides),
    st.builds(Down, sides),
    st.builds(Wanted, st.just(Cause.OPERATOR), st.sampled_from([None, 0, 1])),
    st.just(Tick()),
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, HOUR), events), max_size=40))
def test_never_is_a_session_closed_that_alone_carries_the_stream(steps):
    turns, now, carries = Turns(RotateSpec(max_age_ns=HOUR)), 1, set()
    for passed, event in steps:
        now += passed
        match event:
            case Fed(side):
                carries.add(side)
            case Down(side):
                carries.discard(side)
        for action in turns.handle(now, event):
            if isinstance(action, Renew):
                assert 1 - action.side in carries
