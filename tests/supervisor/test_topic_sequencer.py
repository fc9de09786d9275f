"""Order, loss and repair for who wants some topics only, with integers for messages."""

from hypothesis import given, settings
from hypothesis import strategies as st
from sequencing import Worker, between, lives, run, told

from supervisor.items import LOST, OVERRUN, Gap, Message, SessionChange
from supervisor.lineage import Head
from supervisor.sequencer import Join
from supervisor.topic_sequencer import TopicSequencer


def message(seq, topic_seq, topic="X", epoch=1, at=None):
    at = seq * 10 if at is None else at
    return Message("a", epoch, seq, topic_seq, topic, b"", 0, at, False, True)


def head(seq, state_seq, at=None, epoch=1, **facts):
    at = seq * 10 + 5 if at is None else at
    facts = {"pid": epoch, "session": 1, "connected": True} | facts
    return Head(seq, at, epoch, state_seq=state_seq, **facts)


def test_numbers_of_the_connection_may_jump_those_of_a_topic_may_not():
    items = run(TopicSequencer("a"), message(5, 2), message(9, 3), message(20, 5))
    assert told(items) == [5, 9, (10, 19), 20]
    assert items[2] == Gap("a", 1, 10, 19, LOST, 1, "X")


def test_a_loss_in_a_topic_is_filled_in_from_the_journal():
    journal = [message(7, 3), message(8, 1, "Y"), message(9, 4)]
    facts = [head(4, 1), message(5, 2), message(8, 1, "Y"), message(12, 6)]
    items = run(TopicSequencer("a"), *facts, journal=journal)
    assert told(items) == [5, 8, "7r", "9r", (10, 11), 12]
    assert items[-2].missing == 1


def test_a_topic_of_a_new_incarnation_is_counted_from_one():
    facts = [head(4, 1), message(5, 7), head(5, 1, epoch=2), message(9, 3, epoch=2)]
    items = run(TopicSequencer("a"), *facts, journal=[message(7, 2, epoch=2)])
    assert told(items) == [5, "session", (6, 6), "7r", 9]
    assert items[2].missing == 1


def test_the_end_of_a_topic_is_searched_for_when_another_incarnation_speaks():
    journal = [message(6, 2), message(7, 3)]
    facts = [head(0, 1), message(5, 1), head(8, 1, at=99, epoch=2)]
    items = run(TopicSequencer("a"), *facts, journal=journal)
    assert told(items) == [5, "6r", "7r", (8, 8), "session"]
    assert items[3].missing is None, "nobody knows of which topic the hole is"


def test_the_end_of_a_topic_is_searched_for_where_a_state_frame_is_missing():
    journal = [message(6, 2)]
    facts = [head(4, 1), message(5, 1), head(5, 2), head(6, 3), head(7, 5)]
    journal += [message(7, 1, "Y")]
    assert told(run(TopicSequencer("a"), *facts, journal=journal)) == [5, "7r"]
    facts[3:4] = []
    assert told(run(TopicSequencer("a"), *facts, journal=journal)) == [5, "6r", "7r"]


def test_what_shared_memory_tells_is_searched_for():
    facts = [head(4, 1), message(5, 1), Head(7, 100)]
    items = run(TopicSequencer("a"), *facts, journal=[message(6, 2), message(7, 3)])
    assert told(items) == [5, "6r", "7r"]


def test_double_messages_are_left_out_and_counted():
    sequencer = TopicSequencer("a")
    facts = [message(5, 1), message(9, 3), message(7, 2), message(9, 3), message(10, 4)]
    assert told(run(sequencer, *facts, journal=[message(7, 2)])) == [5, "7r", 9, 10]
    assert sequencer.duplicates == 2


def test_numbers_that_begin_anew_are_another_beginning():
    sequencer = TopicSequencer("a")
    run(sequencer, head(0, 1), message(50, 20))
    items = run(sequencer, message(2, 1, at=1000), message(4, 3, at=1010))
    assert told(items) == ["session", 2, (3, 3), 4]
    assert sequencer.resyncs == 1


def test_joining_late_gives_last_values_a_replay_or_what_came_since():
    journal = [message(1, 1), message(2, 1, "Y"), message(3, 2), message(4, 1, "Y", epoch=2)]
    facts = [head(4, 9, epoch=2), message(5, 2, "Y", epoch=2)]
    last = TopicSequencer("a", Join.LAST_VALUE)
    assert told(run(last, *facts, journal=journal)) == ["3r", "session", "4r", 5]
    replay = run(TopicSequencer("a", Join.REPLAY), *facts, journal=journal)
    assert told(replay)[:4] == ["1r", "2r", "3r", "session"]
    assert told(replay)[-1] == 5
    since = run(TopicSequencer("a", since=2), *facts[:1], journal=journal[:3], oldest=1)
    assert told(since) == ["3r", (4, 4), "session"]


def test_skipping_forgets_what_was_expected():
    sequencer = TopicSequencer("a")
    run(sequencer, head(4, 1), message(5, 1))
    assert sequencer.skip(90) == [Gap("a", 1, 6, 89, OVERRUN, None)]
    assert told(run(sequencer, message(90, 40), message(95, 41))) == [90, 95]


@st.composite
def histories(draw):
    facts, journal, seq, epoch, states, counts = [head(0, 1, at=0)], [], 0, 1, 1, {}
    for at, step in enumerate(draw(st.lists(st.sampled_from("XXXYYZsk"), max_size=60)), 1):
        if step == "k":
            epoch, states, counts = epoch + 1, 1, {}
            facts.append(head(seq, 1, at, epoch, hello=True))
        elif step == "s":
            states += 1
            facts += [head(seq, states, at, epoch)] * draw(st.integers(0, 1))
        else:
            seq += 1
            counts[step] = counts.get(step, 0) + 1
            sent = message(seq, counts[step], step, epoch, at)
            journal += [sent] * draw(st.integers(0, 1))
            if step != "Z":  # not among the topics that are wanted
                facts += [sent] * draw(st.sampled_from([0, 1, 1, 1, 2]))
    return facts, journal, seq


@settings(max_examples=400, deadline=None)
@given(history=histories())
def test_each_topic_is_in_order_and_its_losses_are_counted(history):
    facts, journal, last = history
    wanted = [sent for sent in journal if sent.topic != "Z"]
    sequencer = TopicSequencer("a", since=0)
    items = run(sequencer, *facts, Head(last, 10_000), journal=wanted)
    counted = {}
    for item in items:
        if isinstance(item, Message):
            key = (item.topic, item.epoch)
            assert item.topic_seq == counted.get(key, 0) + 1, "what is missing was told before"
            counted[key] = item.topic_seq
        elif isinstance(item, Gap) and item.missing is not None:
            key = (item.topic, item.epoch)
            counted[key] = counted.get(key, 0) + item.missing
    assert sequencer.resyncs == 0
    delivered = {item.seq for item in items if isinstance(item, Message)}
    heard = {fact.seq for fact in facts if isinstance(fact, Message)}
    assert delivered <= heard | {sent.seq for sent in wanted}
    assert heard <= delivered
    marks = [item.epoch for item in items if isinstance(item, SessionChange)]
    assert marks == sorted(marks)


@settings(max_examples=600, deadline=None)
@given(life=lives("XY", unwanted="Z", looks=False))
def test_each_session_is_told_once_before_its_first_message_that_came_in_its_turn(life):
    worker, facts, journal = life
    sequencer = TopicSequencer("a", since=0)
    items = run(sequencer, *facts, journal=journal)
    # A message from the journal may come after a later one of another topic.
    in_turn = [item for item in items if not (isinstance(item, Message) and item.repaired)]
    for before, after, marks in between(in_turn):
        is_another = worker.sessions[before.seq] != worker.sessions[after.seq]
        assert (marks > 0) == is_another, (before.seq, after.seq)
    assert sum(isinstance(item, SessionChange) for item in items) < len(worker.connected)
    assert sequencer.resyncs == 0


def test_a_session_whose_first_message_is_of_another_topic_is_told_by_the_journal():
    worker = Worker()
    facts = [worker.head(), worker.message()]
    worker.start()
    journal = [worker.message()]
    worker.dial()
    unwanted = [worker.message("Z").seq]
    journal += [worker.message()]
    facts += [worker.head(), worker.message()]
    items = run(TopicSequencer("a"), *facts, journal=journal, unwanted=unwanted)
    assert told(items) == [1, "session", "2r", "session", "4r", 5]


def test_a_late_message_of_the_session_before_is_no_other_session():
    worker = Worker()
    facts = [worker.head(), worker.message("X"), worker.message("Y")]
    lost = worker.message("X")
    facts += [worker.message("Y"), worker.dial(), worker.message("X"), worker.message("Y")]
    items = run(TopicSequencer("a"), *facts, journal=[lost])
    assert told(items) == [1, 2, 4, "session", "3r", 5, 6]
