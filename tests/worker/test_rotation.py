from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from worker import rotation_facts as facts
from worker.announcement import Cause
from worker.rotation import (
    DATA_PATIENCE_NS,
    MATCH_PATIENCE_NS,
    NOTICE_SPACING_NS,
    RETRY_NS,
    SETTLE_NS,
    TRANSITIONS,
    Rotation,
    State,
)
from worker.spec import SECOND_NS, RotateSpec

HOUR = 3600 * SECOND_NS
SPEC = RotateSpec(max_age_ns=HOUR)
FIRST, SECOND = facts.Up(False, 0, 0.0), facts.Up(True, 0, 0.0)


def up(spec=SPEC, *, breaks=False, at=1):
    rotation = Rotation(spec, breaks=breaks)
    assert rotation.handle(at, FIRST) == ()
    return rotation


def overlapping(at=1):
    rotation = up()
    rotation.handle(at, facts.Wanted(Cause.OPERATOR))
    rotation.handle(at, SECOND)
    rotation.handle(at, facts.SecondData())
    assert rotation.state is State.OVERLAPPING
    return rotation


def test_every_state_is_reached_from_resting():
    reached, todo = set(), [State.RESTING]
    while todo:
        state = todo.pop()
        if state not in reached:
            reached.add(state)
            todo += TRANSITIONS[state]
    assert reached == set(State) == set(TRANSITIONS)


def test_at_its_age_a_second_session_is_made_and_the_first_stays():
    rotation = up()
    assert rotation.deadline_ns == 1 + HOUR
    assert rotation.handle(HOUR, facts.Tick()) == ()
    begun = rotation.handle(1 + HOUR, facts.Tick())
    assert begun == (facts.Begin(Cause.MAX_AGE, breaks=False), facts.MakeSecond())
    assert rotation.state is State.MAKING
    assert rotation.deadline_ns is None, (
        "the second session dials by itself for as long as it takes"
    )


def test_the_first_is_closed_at_a_message_that_both_have_once_both_brought_data_for_long_enough():
    rotation = up()
    rotation.handle(10, facts.Wanted(Cause.OPERATOR))
    assert rotation.handle(11, facts.SecondData()) == (), "an answer before it is subscribed"
    rotation.handle(20, SECOND)
    rotation.handle(30, facts.SecondData())
    assert rotation.deadline_ns == 30 + SPEC.overlap_ns
    assert rotation.handle(rotation.deadline_ns, facts.Tick()) == (facts.AwaitMatch(),)
    at = 30 + SPEC.overlap_ns + 5
    assert rotation.handle(at, facts.Matched()) == (facts.CloseFirst(),)
    assert rotation.handle(at + 1, facts.Down(False)) == ()
    assert rotation.handle(at + 2, facts.FirstGone()) == (facts.TakeOver(),)
    assert rotation.deadline_ns == at + 2 + SETTLE_NS
    assert rotation.handle(at + 3, facts.Settled()) == (facts.Finish(SPEC.overlap_ns + 5),)
    assert rotation.state is State.RESTING
    assert rotation.deadline_ns == 20 + HOUR, "the age is the second's"


def test_two_sessions_that_have_nothing_in_common_are_not_kept_for_ever():
    rotation = overlapping()
    rotation.handle(rotation.deadline_ns, facts.Tick())
    assert rotation.deadline_ns == 1 + SPEC.overlap_ns + MATCH_PATIENCE_NS
    assert rotation.handle(rotation.deadline_ns, facts.Tick()) == (facts.CloseFirst(),)
    rotation.handle(10**11, facts.FirstGone())
    (finish,) = rotation.handle(rotation.deadline_ns, facts.Tick())
    assert finish == facts.Finish(SPEC.overlap_ns + MATCH_PATIENCE_NS)


def test_a_first_session_that_dies_meanwhile_is_replaced_by_the_second_whatever_its_state():
    for reached in ((), (SECOND,), (SECOND, facts.SecondData())):
        rotation = up()
        rotation.handle(10, facts.Wanted(Cause.OPERATOR))
        for event in reached:
            rotation.handle(20, event)
        assert rotation.handle(30, facts.Down(False)) == (facts.TakeOver(),)
        overlap_ns = 10 if len(reached) == 2 else 0
        assert rotation.handle(40, facts.Settled()) == (facts.Finish(overlap_ns),)


def test_a_second_session_that_dies_is_waited_for_again():
    rotation = overlapping()
    assert rotation.handle(5, facts.Down(True)) == ()
    assert rotation.state is State.MAKING
    rotation.handle(6, SECOND)
    rotation.handle(7, facts.SecondData())
    assert rotation.state is State.OVERLAPPING
    assert rotation.deadline_ns == 7 + SPEC.overlap_ns


def test_a_second_session_without_data_is_dialled_again_only_if_the_first_has_some():
    rotation = up()
    rotation.handle(10, facts.Wanted(Cause.OPERATOR))
    rotation.handle(20, SECOND)
    assert rotation.handle(20 + DATA_PATIENCE_NS, facts.Tick(first_data_ns=15)) == ()
    again = rotation.handle(20 + 2 * DATA_PATIENCE_NS, facts.Tick(first_data_ns=25))
    assert again == (facts.RenewSecond(),)


def test_an_age_that_is_wanted_later_is_that_of_the_session_there_is():
    rotation = up(RotateSpec())
    assert rotation.deadline_ns is None
    rotation.adjust(SPEC, breaks=False)
    assert rotation.deadline_ns == 1 + HOUR


def test_a_second_session_that_gives_up_leaves_the_first_and_is_tried_again_later():
    rotation = up()
    rotation.handle(HOUR + 1, facts.Tick())
    assert rotation.handle(HOUR + 5, facts.SecondGone()) == (facts.GiveUp(),)
    assert rotation.deadline_ns == HOUR + 5 + RETRY_NS


def test_where_one_session_is_allowed_it_says_that_it_breaks_and_dials_again():
    for rotation in (up(breaks=True), up(RotateSpec(overlap_ns=0))):
        begun = rotation.handle(10, facts.Wanted(Cause.OPERATOR))
        assert begun == (facts.Begin(Cause.OPERATOR, breaks=True), facts.RenewFirst())
        rotation.handle(11, facts.Down(False))
        assert rotation.handle(12, FIRST) == (facts.Finish(0),)


def test_a_crowded_exchange_is_waited_for_and_then_it_must_break():
    rotation = up()
    rotation.handle(10, facts.Wanted(Cause.OPERATOR))
    assert rotation.handle(20, facts.Crowded()) == ()
    assert rotation.handle(20 + DATA_PATIENCE_NS, facts.Crowded()) == (
        facts.DropSecond(),
        facts.Begin(Cause.CROWDED, breaks=True),
        facts.RenewFirst(),
    )


def test_an_order_while_there_is_no_session_or_one_is_being_replaced_does_nothing():
    rotation = Rotation(SPEC, breaks=False)
    assert rotation.handle(0, facts.Wanted(Cause.OPERATOR)) == ()
    rotation = overlapping()
    assert rotation.handle(1, facts.Wanted(Cause.OPERATOR)) == ()


def test_a_notice_to_a_session_just_made_waits_so_that_a_dying_exchange_is_not_stormed():
    rotation = up(at=100)
    assert rotation.handle(110, facts.Wanted(Cause.NOTICE)) == ()
    assert rotation.deadline_ns == 100 + NOTICE_SPACING_NS
    begun = rotation.handle(rotation.deadline_ns, facts.Tick())
    assert begun[0] == facts.Begin(Cause.NOTICE, breaks=False)


class Life(RuleBasedStateMachine):
    """A shell that does what it is asked to, and an exchange that does what it likes."""

    def __init__(self):
        super().__init__()
        self.now = 1
        self.rotation = Rotation(SPEC, breaks=False)
        self.first, self.second = "down", None  # None: there is none; down, up, data
        self.closing = False
        self.begun = self.done = 0

    def tell(self, event):
        for action in self.rotation.handle(self.now, event):
            match action:
                case facts.Begin():
                    self.begun += 1
                case facts.MakeSecond():
                    assert self.second is None
                    assert self.first != "down", "the first one stays"
                    self.second = "down"
                case facts.CloseFirst():
                    assert self.second == "data", "never before the second one carries"
                    self.closing = True
                case facts.TakeOver():
                    assert self.first == "down"
                    self.first, self.second, self.closing = self.second, None, False
                case facts.RenewSecond():
                    self.second = "down"
                case facts.GiveUp():
                    assert self.second is None
                    self.begun -= 1
                case facts.Finish():
                    self.done += 1
                    assert self.second is None

    @rule(seconds=st.integers(0, 4000))
    def time_passes(self, seconds):
        self.now += seconds * SECOND_NS
        self.tell(facts.Tick(self.now if self.first == "data" else 0))

    @rule(cause=st.sampled_from([Cause.OPERATOR, Cause.NOTICE]))
    def wanted(self, cause):
        self.tell(facts.Wanted(cause))

    @rule(is_second=st.booleans())
    def comes_up(self, is_second):
        self.now += 1
        if (self.second if is_second else self.first) != "down" or (self.closing and not is_second):
            return
        if is_second:
            self.second = "up"
        else:
            self.first = "up"
        self.tell(facts.Up(is_second, self.now, 0.5))

    @rule(is_second=st.booleans())
    def goes_down(self, is_second):
        self.now += 1
        if is_second and self.second is not None:
            self.second = "down"
            self.tell(facts.Down(True))
        elif not is_second:
            self.first = "down"
            was_closing = self.closing
            self.tell(facts.Down(False))
            if was_closing:
                self.tell(facts.FirstGone())

    @rule()
    def second_is_gone(self):
        if self.second is not None and not self.closing:
            self.second = None
            self.tell(facts.SecondGone())

    @precondition(lambda self: self.second == "up")
    @rule()
    def second_has_data(self):
        self.second = "data"
        self.tell(facts.SecondData())

    @rule()
    def both_have_a_message(self):
        self.tell(facts.Matched())

    @rule()
    def settles(self):
        self.tell(facts.Settled())

    @invariant()
    def it_is_bounded(self):
        assert self.done <= self.begun <= self.done + 1
        has_two = self.rotation.state in (State.MAKING, State.OVERLAPPING, State.CLOSING)
        assert (self.second is not None) == has_two


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
