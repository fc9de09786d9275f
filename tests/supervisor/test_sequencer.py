"""Order, loss and repair of one connection, with integers for messages."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sequencing import Worker, between, lives, run, told

from supervisor.items import LOST, OVERRUN, Gap, Message, SessionChange
from supervisor.lineage import Head
from supervisor.sequencer import Join, Sequencer


def message(seq, epoch=1, at=None, topic="data.a", topic_seq=0, repaired=False):
    at = seq * 10 if at is None else at
    return Message("a", epoch, seq, topic_seq, topic, b"", 0, at, repaired, True)


def head(seq, at, epoch=1, **facts):
    return Head(seq, at, epoch, **{"pid": epoch, "session": 1, "connected": True} | facts)


def test_the_first_message_sets_the_expectation():
    assert told(run(Sequencer("a"), message(7), message(8))) == [7, 8]


def test_what_the_journal_has_is_filled_in_and_what_it_has_not_is_a_gap():
    journal = [message(seq) for seq in (2, 3, 5)]
    items = run(Sequencer("a"), message(1), message(7), journal=journal)
    assert told(items) == [1, "2r", "3r", (4, 4), "5r", (6, 6), 7]
    assert all(item.cause == LOST for item in items if isinstance(item, Gap))


def test_what_the_journal_has_no_more_is_an_overrun():
    journal = [message(seq) for seq in (5, 6)]
    items = run(Sequencer("a"), message(1), message(7), journal=journal, oldest=5)
    assert items[1] == Gap("a", 1, 2, 4, OVERRUN, 3)


def test_a_late_or_double_message_is_left_out_and_counted():
    sequencer = Sequencer("a")
    items = run(sequencer, message(1), message(3), message(2), message(3), message(4))
    assert told(items) == [1, (2, 2), 3, 4]
    assert sequencer.duplicates == 2


def test_a_head_tells_of_a_loss_that_nothing_follows():
    items = run(Sequencer("a"), message(1), head(1, 11), head(3, 35), journal=[message(2)])
    assert told(items) == [1, "2r", (3, 3)]


def test_a_greeting_is_no_expectation_but_tells_of_a_loss():
    sequencer = Sequencer("a")
    items = run(sequencer, head(5, 1, hello=True), message(9), head(9, 91, hello=True))
    assert told(items) == [9]
    assert told(run(sequencer, head(8, 92, hello=True), head(10, 101, hello=True))) == [(10, 10)]


def test_a_new_incarnation_goes_on_and_is_marked_where_its_messages_begin():
    sequencer = Sequencer("a")
    journal = [message(2), message(3, epoch=2)]
    items = run(sequencer, head(0, 1), message(1), message(4, epoch=2), journal=journal)
    assert told(items) == [1, "2r", "session", "3r", 4]
    assert items[2] == SessionChange("a", 2)
    assert sequencer.epoch == 2


def test_the_end_of_the_former_incarnation_comes_before_the_mark_of_the_next():
    facts = [head(0, 1), message(1), head(2, 25, epoch=2, session=4)]
    assert told(run(Sequencer("a"), *facts, journal=[message(2)])) == [1, "2r", "session"]


def test_a_session_of_the_same_worker_is_marked_once_when_it_can_give_data():
    sequencer = Sequencer("a")
    facts = [
        head(0, 1, session=1),
        message(1),
        head(1, 11, session=2, connected=False),
        head(1, 12, session=3, connected=False),
        head(1, 13, session=3),
        message(2),
        head(2, 21, session=3),
    ]
    assert told(run(sequencer, *facts)) == [1, "session", 2]


def test_the_session_at_joining_is_no_change():
    facts = [head(4, 1, hello=True, connected=False), head(4, 2), message(5), head(5, 51)]
    assert told(run(Sequencer("a"), *facts)) == [5]


@pytest.mark.parametrize(
    "fresh",
    [
        [message(1, at=1000), message(2, at=1001)],
        [head(0, 1000), message(1, at=1001), message(2, at=1002)],
        [head(0, 900, pid=9, hello=True), message(1, at=1001), message(2, at=1002)],
        [message(1, epoch=3, at=1000), message(2, epoch=3, at=1001)],
    ],
    ids=["data", "head", "another process of the same number", "later number, lost count"],
)
def test_numbers_that_begin_anew_are_another_beginning_and_no_duplicates(fresh):
    sequencer = Sequencer("a")
    before = run(sequencer, head(0, 1), *(message(seq) for seq in range(1, 51)))
    assert len(before) == 50
    assert told(run(sequencer, *fresh)) == ["session", 1, 2]
    assert (sequencer.resyncs, sequencer.duplicates) == (1, 0)


def test_another_beginning_that_is_ahead_already_is_told_by_its_process():
    sequencer = Sequencer("a")
    run(sequencer, head(0, 1), message(1), message(2))
    new = [message(seq, at=1000 + seq) for seq in range(1, 9)]
    items = run(sequencer, head(8, 2000, pid=9, hello=True), journal=new)
    assert told(items) == ["session", *(f"{seq}r" for seq in range(1, 9))]


def test_since_gives_what_came_after_or_says_that_it_is_gone():
    journal = [message(seq) for seq in range(4, 10)]
    items = run(Sequencer("a", since=2), message(10), journal=journal, oldest=4)
    assert told(items) == [(3, 3), *(f"{seq}r" for seq in range(4, 10)), 10]
    assert items[0].cause == OVERRUN
    assert told(run(Sequencer("a", since=9), head(9, 5, hello=True), message(10))) == [10]
    assert told(run(Sequencer("a", since=12), message(2), journal=[message(1)])) == [
        "session", "1r", 2,
    ]  # fmt: skip


def test_replay_begins_where_the_journal_does_without_a_gap():
    journal = [message(seq) for seq in (5, 6, 8)]
    facts = [head(8, 81, hello=True), head(9, 95), message(10)]
    items = run(Sequencer("a", Join.REPLAY), *facts, journal=journal, oldest=5)
    assert told(items) == ["5r", "6r", (7, 7), "8r", (9, 9), 10]
    assert told(run(Sequencer("a", Join.REPLAY), message(3))) == [3]


def test_last_value_gives_one_message_a_topic_in_order():
    topics = ["data.a.X", "data.a.Y", "data.a.X", "data.a.Z", "data.a.X"]
    journal = [message(seq, topic=topic) for seq, topic in enumerate(topics, 1)]
    items = run(Sequencer("a", Join.LAST_VALUE), message(6), journal=journal)
    assert told(items) == ["2r", "4r", "5r", 6]


def test_skipping_is_one_gap_and_what_follows_is_in_turn():
    sequencer = Sequencer("a")
    run(sequencer, message(1))
    assert sequencer.skip(50) == [Gap("a", 1, 2, 49, OVERRUN, 48)]
    assert told(run(sequencer, message(50), message(51))) == [50, 51]
    assert sequencer.skip(50) == []


def test_a_head_amid_what_is_skipped_marks_its_session_and_begins_nothing_anew():
    sequencer = Sequencer("a")
    run(sequencer, head(0, 1), message(1, at=2))
    assert told(sequencer.skip(50, head(20, 30))) == [(2, 49)]
    assert told(sequencer.skip(90, head(60, 40, session=2))) == [(50, 89), "session"]
    assert sequencer.resyncs == 0
    assert told(run(sequencer, message(90, at=50))) == [90]
    assert told(sequencer.skip(30, head(20, 70, epoch=1, pid=9))) == ["session", (1, 29)]
    assert sequencer.resyncs == 1


@st.composite
def histories(draw):
    """What a worker did, over deaths, and what of it reached whom."""
    facts, journal, seq, epoch, session = [], [], 0, 1, 1
    for at, step in enumerate(draw(st.lists(st.sampled_from("mmmmmmsdk"), max_size=60)), 1):
        if step == "m":
            seq += 1
            sent = message(seq, epoch, at)
            if draw(st.booleans()):
                journal.append(sent)
            facts += [sent] * draw(st.sampled_from([0, 1, 1, 1, 2]))
        elif step == "s":
            facts += [head(seq, at, epoch, session=session)] * draw(st.sampled_from([0, 1, 1]))
        elif step == "d":
            session += 1
            facts += [head(seq, at, epoch, session=session)]
        else:
            epoch, session = epoch + 1, 1
            facts += [head(seq, at, epoch, hello=True)] * draw(st.integers(0, 1))
    return facts, journal, seq


@settings(max_examples=400, deadline=None)
@given(history=histories(), late=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9))))
def test_whatever_is_lost_double_or_late_every_number_is_told_exactly_once(history, late):
    facts, journal, last = history
    for index, delay in late:  # copies that come again later
        if index < len(facts) and isinstance(facts[index], Message):
            facts.insert(min(index + delay, len(facts)), facts[index])
    sequencer = Sequencer("a", since=0)
    items = run(sequencer, *facts, Head(last, 10_000), journal=journal)
    covered = []
    for item in items:
        if isinstance(item, Message):
            covered.append(item.seq)
        elif isinstance(item, Gap):
            assert item.missing == item.last - item.first + 1
            covered += range(item.first, item.last + 1)
    assert covered == list(range(1, last + 1))
    assert sequencer.resyncs == 0
    kept = {sent.seq for sent in journal}
    given_out = {item.seq for item in items if isinstance(item, Message)}
    heard = {fact.seq for fact in facts if isinstance(fact, Message)}
    assert kept <= given_out <= kept | heard, "the journal is searched for everything"
    marks = [item.epoch for item in items if isinstance(item, SessionChange)]
    assert marks == sorted(marks)
    epochs = [item.epoch for item in items if not isinstance(item, Gap)]
    assert epochs == sorted(epochs), "a mark stands before the first message of its incarnation"


@settings(max_examples=200, deadline=None)
@given(first=histories(), second=histories())
def test_another_beginning_is_told_from_its_first_number_on(first, second):
    sequencer = Sequencer("a", since=0)
    facts, journal, last = first
    run(sequencer, head(0, 0), *facts, Head(last, 9_000), journal=journal)
    facts, journal, last = second
    later = [_later(fact) for fact in (head(0, 0, hello=True), *facts, head(last, 9_000, 99))]
    items = run(sequencer, *later, journal=[_later(sent) for sent in journal])
    assert isinstance(items[0], SessionChange)
    assert sequencer.resyncs == 1
    covered = []
    for item in items:
        if isinstance(item, Message):
            covered.append(item.seq)
        elif isinstance(item, Gap):
            covered += range(item.first, item.last + 1)
    assert covered == list(range(1, last + 1))


def _later(fact):
    if isinstance(fact, Head):
        return dataclasses.replace(fact, at_ns=fact.at_ns + 10_000, pid=fact.pid + 1000)
    return fact._replace(monotonic_ns=fact.monotonic_ns + 10_000)


# Sessions ----------------------------------------------------------------------------------------


def test_a_session_that_only_the_journal_tells_of_is_marked_before_its_first_message():
    worker = Worker()
    facts = [worker.head(), worker.message()]
    worker.start()
    journal = [worker.message()]
    worker.dial()
    journal += [worker.message()]
    facts += [worker.head(), worker.message()]
    items = run(Sequencer("a"), *facts, worker.head(), journal=journal)
    assert told(items) == [1, "session", "2r", "session", "3r", 4]


def test_a_session_that_its_first_message_or_its_state_tells_is_marked_once():
    for unheard in (1, 2, 3):
        worker = Worker()
        facts = [worker.head(), worker.message(), worker.dial(), worker.head(), worker.message()]
        facts += [worker.head(), worker.message()]
        journal = [facts[4]]
        del facts[2 : 2 + unheard]
        assert told(run(Sequencer("a"), *facts, journal=journal))[:2] == [1, "session"]
        assert told(run(Sequencer("a"), *facts, journal=journal)).count("session") == 1


def test_a_session_whose_first_message_is_lost_is_told_by_the_next():
    worker = Worker()
    facts = [worker.head(), worker.message()]
    worker.dial()
    worker.message()
    assert told(run(Sequencer("a"), *facts, worker.message())) == [1, (2, 2), "session", 3]


def test_a_replay_tells_where_sessions_began():
    worker = Worker()
    journal = [worker.message()]
    worker.dial()
    journal += [worker.message(), worker.message()]
    items = run(Sequencer("a", Join.REPLAY), worker.head(), worker.message(), journal=journal)
    assert told(items) == ["1r", "session", "2r", "3r", 4]


@settings(max_examples=600, deadline=None)
@given(life=lives())
def test_each_session_is_told_once_before_its_first_message_whatever_comes_first(life):
    worker, facts, journal = life
    sequencer = Sequencer("a", since=0)
    items = run(sequencer, *facts, journal=journal)
    for before, after, marks in between(items):
        is_another = worker.sessions[before.seq] != worker.sessions[after.seq]
        assert (marks > 0) == is_another, (before.seq, after.seq)
    assert sum(isinstance(item, SessionChange) for item in items) < len(worker.connected)
    assert sequencer.resyncs == 0
