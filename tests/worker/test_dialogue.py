"""How a session uses it: tests/worker/test_session.py."""

from dataclasses import replace

from worker.dialogue import Dialogue
from worker.outbox import Outbox
from worker.spec import AckSpec, Match, MatchKind, OutboundLimit, SubscribeSpec

PLAIN = SubscribeSpec(messages=("a", "b"))
OK = Match(kind=MatchKind.TEXT, value="ok")
ACKED = replace(PLAIN, ack=AckSpec(match=OK, timeout_ns=100))
TOPICS = SubscribeSpec(
    topics=("x",), template="+${topics}${seq}", cancel_template="-${topics}${seq}", ack=ACKED.ack
)


def begun(wanted, limit=None, logins=()):
    dialogue = Dialogue(wanted, Outbox(limit), logins)
    dialogue.begin()
    return dialogue


def test_nothing_is_said_nor_due_before_the_welcome():
    dialogue = Dialogue(replace(PLAIN, ready=OK), Outbox(None), (b"login",))
    assert dialogue.awaiting_ready
    assert dialogue.deadline_ns is None
    assert dialogue.speak(5) == ()
    dialogue.begin()
    assert not dialogue.awaiting_ready
    assert dialogue.speak(5) == (b"login", b"a", b"b")
    assert dialogue.is_over


def test_the_time_for_answers_runs_once_all_is_said():
    dialogue = begun(ACKED, OutboundLimit(messages=2, per_ns=50))
    assert dialogue.speak(10) == (b"a",)
    assert dialogue.deadline_ns == 60
    assert not dialogue.is_overdue(10**9)
    assert dialogue.speak(60) == (b"b",)
    assert dialogue.deadline_ns == 160
    assert (dialogue.is_overdue(159), dialogue.is_overdue(160)) == (False, True)


def test_it_is_over_with_the_last_answer_and_more_are_not_awaited():
    dialogue = begun(ACKED)
    dialogue.speak(10)
    assert dialogue.take_answer()
    assert not dialogue.is_over
    assert dialogue.take_answer()
    assert dialogue.is_over
    assert dialogue.deadline_ns is None
    assert not dialogue.take_answer()


def test_a_change_is_numbered_on_and_answered_too():
    dialogue = begun(TOPICS)
    assert dialogue.speak(0) == (b'+["x"]1',)
    assert dialogue.take_answer()
    found = dialogue.change(replace(TOPICS, topics=("y",)))
    assert (found.added, found.removed) == (1, 1)
    assert dialogue.speak(10) == (b'-["x"]2', b'+["y"]3')
    assert dialogue.awaiting_acks
    assert dialogue.deadline_ns == 110
    dialogue.give_up()
    assert dialogue.is_over
    assert dialogue.change(replace(TOPICS, topics=("y", "z"))).messages == (b'+["z"]4',)


def test_a_change_that_needs_a_new_session_changes_nothing():
    dialogue = begun(PLAIN)
    dialogue.speak(0)
    assert dialogue.change(replace(PLAIN, messages=("b",))) is None
    assert dialogue.is_over
    assert dialogue.speak(1) == ()
