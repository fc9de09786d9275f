import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import heartbeat
from worker.announcement import EventKind
from worker.exits import Exit
from worker.session import (
    TRANSITIONS,
    AbortWire,
    Announce,
    CloseWire,
    Connected,
    Dial,
    EndWorker,
    Lost,
    Opened,
    Session,
    Started,
    State,
    StopWanted,
    Subscribe,
    Subscribed,
    Tick,
)
from worker.spec import SECOND_NS, ConnectionSpec, HeartbeatSpec, ReconnectSpec

URL = "ws://127.0.0.1:1/"
SPEC = ConnectionSpec(name="x", url=URL, heartbeat=HeartbeatSpec(interval_ns=10, timeout_ns=5))
LOST = Lost("reset", 0.5)


def events(actions):
    return [action.announcement for action in actions if isinstance(action, Announce)]


def down(actions):
    (event,) = [event for event in events(actions) if event.kind is EventKind.DOWN]
    return event


def brought_up(spec=SPEC, now_ns=100):
    session = Session(spec)
    session.handle(now_ns, Started())
    session.handle(now_ns, Connected("peer"))
    assert session.handle(now_ns, Opened()) == (Subscribe(),)
    (up,) = events(session.handle(now_ns, Subscribed()))
    assert up.kind is EventKind.UP
    return session


def test_up_means_the_handshake_is_done_and_all_subscriptions_are_written():
    session = Session(SPEC)
    assert session.handle(0, Started()) == (Dial(1),)
    states = [session.state]
    for event in (Connected("peer"), Opened()):
        session.handle(5, event)
        states.append(session.state)
    assert states == [State.DIALING, State.HANDSHAKING, State.SUBSCRIBING]
    assert session.up_ns == 0
    (up,) = events(session.handle(8, Subscribed()))
    assert session.state is State.UP
    assert session.up_ns == 8
    assert (up.detail["session"], up.detail["attempt"], up.detail["peer"]) == (1, 1, "peer")


def test_a_missing_pong_closes_the_socket_and_only_its_loss_leads_to_the_next_dial():
    session = brought_up()
    at = session.deadline_ns
    (ping,) = session.handle(at, Tick())
    session.handle(at, heartbeat.Sent(ping.seq, b"1"))
    assert session.handle(at + 5, Tick()) == (heartbeat.Look(),)
    dead, timeout, close = session.handle(at + 5, heartbeat.Looked())
    assert isinstance(dead, heartbeat.DeclareDead)
    assert timeout.announcement.kind is EventKind.TIMEOUT
    assert isinstance(close, CloseWire)
    assert not close.wait
    assert session.state is State.DRAINING
    assert session.handle(at + 10**12, Tick()) == ()
    event = down(session.handle(at + 6, LOST))
    assert event.cause == "ping_timeout"
    assert event.delay_s == 0.05
    assert session.state is State.WAITING


def test_the_next_dial_leaves_at_its_time_with_the_next_number():
    session = brought_up()
    session.handle(200, LOST)
    due = session.deadline_ns
    assert due == 200 + SPEC.reconnect.initial_delay_ns // 2
    assert session.handle(due - 1, Tick()) == ()
    assert session.handle(due, Tick()) == (Dial(2),)


def test_a_session_that_was_stable_is_redialled_at_once():
    session = brought_up()
    at = 100 + SPEC.reconnect.stable_after_ns
    assert down(session.handle(at, LOST)).delay_s == 0
    assert session.deadline_ns == at


@pytest.mark.parametrize(
    "lost",
    [
        *(Lost("handshake_refused", 0.0, status=status) for status in (401, 403, 404, 410)),
        Lost("peer_closed", 0.0, code=1008),
    ],
)
def test_a_refusal_that_will_not_pass_is_not_hammered(lost):
    session = Session(SPEC)
    session.handle(0, Started())
    session.handle(1, Connected("peer"))
    assert down(session.handle(2, lost)).delay_s == SPEC.reconnect.max_delay_ns / SECOND_NS


@pytest.mark.parametrize("reached", [(), (Connected("p"),), (Connected("p"), Opened())])
def test_the_connect_timeout_covers_everything_until_up(reached):
    session = Session(SPEC)
    session.handle(0, Started())
    for event in reached:
        session.handle(1, event)
    assert session.deadline_ns == SPEC.reconnect.connect_timeout_ns
    assert session.handle(session.deadline_ns, Tick()) == (AbortWire(),)
    assert down(session.handle(10**11, Lost("aborted", 0.5))).cause == "connect_timeout"


@pytest.mark.parametrize(
    ("reached", "close"),
    [
        ((), AbortWire()),
        ((Connected("p"),), AbortWire()),
        ((Connected("p"), Opened()), CloseWire(1000, "", wait=True)),
        ((Connected("p"), Opened(), Subscribed()), CloseWire(1000, "", wait=True)),
    ],
)
def test_a_stop_closes_what_there_is_and_ends_the_worker_when_it_is_gone(reached, close):
    session = Session(SPEC)
    session.handle(0, Started())
    for event in reached:
        session.handle(1, event)
    assert session.handle(2, StopWanted()) == (close,)
    assert session.handle(3, StopWanted()) == ()
    last, end = session.handle(4, LOST)
    assert last.announcement.cause == "stop"
    assert end == EndWorker(Exit.STOPPED)


def test_a_stop_while_waiting_ends_at_once():
    session = brought_up()
    session.handle(200, LOST)
    assert session.handle(201, StopWanted()) == (EndWorker(Exit.STOPPED),)


def test_a_stop_during_the_close_of_a_dead_session_ends_with_it():
    session = brought_up()
    session.handle(200, heartbeat.SendFailed())
    assert session.state is State.DRAINING
    assert session.handle(201, StopWanted()) == ()
    assert session.handle(202, LOST)[-1] == EndWorker(Exit.STOPPED)


def test_without_reconnecting_the_loss_ends_the_worker():
    session = brought_up(ConnectionSpec(name="x", url=URL, reconnect=ReconnectSpec(enabled=False)))
    last, end = session.handle(200, Lost("peer_closed", 0.5, code=1000, reason="bye"))
    assert last.announcement.detail["reason"] == "bye"
    assert last.announcement.delay_s is None
    assert end == EndWorker(Exit.UNAVAILABLE)


def test_without_a_heartbeat_nothing_is_due_and_a_pong_is_foreign():
    session = brought_up(ConnectionSpec(name="x", url=URL, heartbeat=None))
    assert session.deadline_ns is None
    assert session.handle(10**15, Tick()) == ()
    assert session.handle(10**15, heartbeat.PongFrame(b"")) == (heartbeat.CountForeignPong(),)


def test_each_session_has_a_heartbeat_of_its_own():
    session = brought_up()
    former = session.heartbeat
    session.handle(200, LOST)
    assert session.heartbeat is None
    session.handle(session.deadline_ns, Tick())
    for event in (Connected("p"), Opened(), Subscribed()):
        session.handle(10**10, event)
    assert session.heartbeat is not former


def test_two_thousand_refused_dials_stay_flat_and_go_on():
    session = Session(SPEC)
    session.handle(0, Started())
    for number in range(2, 2_002):
        session.handle(1, Lost("connect_refused", 0.5))
        assert session.handle(session.deadline_ns, Tick()) == (Dial(number),)


FACTS = st.sampled_from(
    [
        Connected("p"),
        Opened(),
        Subscribed(),
        LOST,
        Lost("peer_closed", 0.9, code=1008),
        Tick(),
        heartbeat.Looked(),
        heartbeat.SendFailed(),
        heartbeat.PongFrame(b"1"),
        StopWanted(),
    ]
)


@given(st.lists(st.tuples(st.integers(0, 40 * SECOND_NS), FACTS), max_size=100))
def test_in_any_order_of_facts_there_is_one_socket_at_most_and_one_end(steps):
    session = Session(SPEC)
    now_ns, sockets, ends, dials = 0, 0, 0, 0
    facts = [(0, Started()), *steps]
    for gap, fact in facts:
        now_ns += gap
        if isinstance(fact, Lost):
            if not sockets:  # a wire that was never opened cannot be lost
                continue
            sockets -= 1
        for action in session.handle(now_ns, fact):
            match action:
                case Dial(number):
                    dials += 1
                    sockets += 1
                    assert number == dials
                case heartbeat.SendPing(seq):
                    session.handle(now_ns, heartbeat.Sent(seq, b"%d" % seq))
                case EndWorker():
                    ends += 1
        assert sockets <= 1
        assert ends == (session.state is State.CLOSED)
        assert (session.up_ns != 0) <= (session.state in (State.UP, State.DRAINING))


def test_every_state_has_its_transitions_and_a_word_of_its_own():
    assert set(TRANSITIONS) == set(State)
    assert sorted(state.value for state in State) == list(range(len(State)))
    assert [state for state, after in TRANSITIONS.items() if not after] == [State.CLOSED]
