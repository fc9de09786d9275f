from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.announcement import Announcement, EventKind
from worker.session_state import State
from worker.together import ORDER, Seen, Together


@dataclass
class Machine:
    state: State
    number: int
    up_ns: int = 0


def note(together, side, state, number, up_ns=0):
    return together.note(side, Machine(state, number, up_ns))


def told(together, side, announcement):
    return [found.kind for found in together.told(side, announcement, named=False)]


def test_the_order_knows_every_state():
    assert set(ORDER) == set(State)


def test_a_session_alone_is_the_connection():
    together = Together()
    for state, number, up_ns in (
        (State.DIALING, 1, 0),
        (State.UP, 1, 50),
        (State.STALE, 1, 50),
        (State.WAITING, 1, 0),
        (State.DIALING, 2, 0),
    ):
        assert note(together, 0, state, number, up_ns) == Seen(state, number, up_ns)


def test_the_number_stays_when_a_session_with_data_takes_over():
    together = Together()
    note(together, 0, State.UP, 1, 50)
    note(together, 1, State.DIALING, 2)
    note(together, 1, State.UP, 2, 90)
    assert together.feed(1) == Seen(State.UP, 1, 50)
    assert note(together, 0, State.DRAINING, 1, 50) == Seen(State.UP, 1, 50)
    assert note(together, 0, State.CLOSED, 1) == Seen(State.UP, 1, 90)
    assert together.drop(0) == Seen(State.UP, 1, 90)
    assert note(together, 1, State.STALE, 2, 90) == Seen(State.STALE, 1, 90)
    assert note(together, 1, State.WAITING, 2) == Seen(State.WAITING, 2)


def test_the_number_changes_when_the_only_one_with_data_ends():
    together = Together()
    note(together, 0, State.UP, 1, 50)
    note(together, 1, State.UP, 2, 90)
    assert together.seen.number == 1
    assert note(together, 0, State.WAITING, 1) == Seen(State.UP, 2, 90)


def test_two_that_come_up_together_begin_with_the_first():
    together = Together()
    for side in (0, 1):
        note(together, side, State.DIALING, side + 1)
    note(together, 1, State.UP, 2, 40)
    note(together, 0, State.UP, 1, 50)
    assert together.seen == Seen(State.UP, 2, 40)
    together.feed(0)
    number = together.seen.number
    together.feed(1)
    note(together, 1, State.WAITING, 2)
    assert together.seen.number == number


def test_beside_a_session_that_is_up_events_are_a_legs():
    together = Together()
    note(together, 0, State.UP, 1, 50)
    note(together, 1, State.WAITING, 2)
    down = Announcement(kind=EventKind.DOWN)
    assert told(together, 1, down) == [EventKind.LEG_DOWN]
    assert told(together, 0, down) == [EventKind.DOWN]
    timeout = Announcement(kind=EventKind.TIMEOUT, detail={"session": 2})
    assert together.told(1, timeout, named=False) == [timeout]
    (named,) = together.told(1, timeout, named=True)
    assert named.detail == {"session": 2, "leg": 2}


def test_a_connection_is_stale_if_each_of_its_sessions_that_are_up_is():
    together = Together()
    stale, fresh = (Announcement(kind=kind) for kind in (EventKind.STALE, EventKind.FRESH))
    note(together, 0, State.STALE, 1, 50)
    note(together, 1, State.UP, 2, 60)
    assert told(together, 0, stale) == []
    note(together, 1, State.STALE, 2, 60)
    assert told(together, 1, stale) == [EventKind.STALE]
    assert told(together, 1, stale) == [], "once"
    note(together, 0, State.UP, 1, 50)
    assert told(together, 0, fresh) == [EventKind.FRESH]
    note(together, 1, State.UP, 2, 60)
    assert told(together, 1, fresh) == [], "it was already"


def test_a_stale_connection_that_goes_down_does_not_turn_fresh():
    together = Together()
    note(together, 0, State.STALE, 1, 50)
    assert told(together, 0, Announcement(kind=EventKind.STALE)) == [EventKind.STALE]
    note(together, 0, State.WAITING, 1)
    assert told(together, 0, Announcement(kind=EventKind.DOWN)) == [EventKind.DOWN]
    note(together, 0, State.UP, 2, 90)
    assert told(together, 0, Announcement(kind=EventKind.UP)) == [EventKind.UP]


states = st.sampled_from(list(State))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), states, st.booleans()), max_size=40))
def test_while_a_side_with_data_stays_up_the_number_does_not_change(steps):
    together, fed, number = Together(), None, [1, 2]
    for side in (0, 1):
        note(together, side, State.DIALING, number[side])
    for side, state, has_data in steps:
        if state is State.DIALING:
            number[side] = max(number) + 1
        is_up = state in (State.UP, State.STALE)
        seen = note(together, side, state, number[side], 7 if is_up else 0)
        if is_up and has_data:
            seen = together.feed(side)
            if fed is None or fed[0] == side:
                fed = (side, number[side], seen.number)
        elif fed is not None and fed[0] == side and not is_up:
            fed = None
        if fed is not None and fed[1] == number[fed[0]]:
            assert seen.number == fed[2]
