from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import heartbeat_facts
from worker.announcement import EventKind
from worker.exits import Exit
from worker.session import TRANSITIONS, Session, State
from worker.session_facts import (
    AbortWire,
    AckSeen,
    Announce,
    CloseWire,
    Connected,
    DataSeen,
    Dial,
    EndWorker,
    Lost,
    Opened,
    Postponed,
    ReadySeen,
    Say,
    Started,
    StopWanted,
    SubscriptionWanted,
    Tick,
)
from worker.silence import Heard
from worker.spec import (
    SECOND_NS,
    AckSpec,
    ConnectionSpec,
    HeartbeatSpec,
    LivenessSpec,
    Match,
    MatchKind,
    OutboundLimit,
    ReconnectSpec,
    ServerHeartbeat,
    SubscribeSpec,
)

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
    (up,) = events(session.handle(now_ns, Opened()))
    assert up.kind is EventKind.UP
    return session


def test_up_means_the_handshake_is_done_and_all_subscriptions_are_written():
    session = Session(SPEC)
    assert session.handle(0, Started()) == (Dial(1),)
    assert session.state is State.DIALING
    session.handle(5, Connected("peer"))
    assert session.state is State.HANDSHAKING
    assert session.up_ns == 0
    (up,) = events(session.handle(8, Opened()))
    assert session.state is State.UP
    assert session.up_ns == 8
    assert (up.detail["session"], up.detail["attempt"], up.detail["peer"]) == (1, 1, "peer")


def test_a_missing_pong_closes_the_socket_and_only_its_loss_leads_to_the_next_dial():
    session = brought_up()
    at = session.deadline_ns
    (ping,) = session.handle(at, Tick())
    session.handle(at, heartbeat_facts.Sending(ping.seq, b"1"))
    assert isinstance(session.handle(at + 5, Tick())[0], heartbeat_facts.Look)
    dead, timeout, close = session.handle(at + 5, heartbeat_facts.Looked())
    assert isinstance(dead, heartbeat_facts.DeclareDead)
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


@pytest.mark.parametrize("reached", [(), (Connected("p"),)])
def test_the_connect_timeout_covers_everything_until_open(reached):
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
    session.handle(200, heartbeat_facts.SendFailed())
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
    assert session.handle(10**15, heartbeat_facts.PongFrame(b"")) == (
        heartbeat_facts.CountForeignPong(),
    )


def test_each_session_has_a_heartbeat_of_its_own():
    session = brought_up()
    former = session.heartbeat
    session.handle(200, LOST)
    assert session.heartbeat is None
    session.handle(session.deadline_ns, Tick())
    for event in (Connected("p"), Opened()):
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
        Opened((b"login",)),
        ReadySeen(),
        AckSeen(),
        AckSeen("no"),
        DataSeen(),
        Postponed(SECOND_NS),
        SubscriptionWanted(SubscribeSpec(messages=("b",))),
        SubscriptionWanted(SubscribeSpec(topics=("t",), template="${topics}")),
        LOST,
        Lost("peer_closed", 0.9, code=1008),
        Tick(),
        heartbeat_facts.Looked(),
        heartbeat_facts.SendFailed(),
        heartbeat_facts.PongFrame(b"1"),
        StopWanted(),
    ]
)


ACKED = SubscribeSpec(
    messages=("a", "b"),
    ready=Match(kind=MatchKind.TEXT, value="hello"),
    ack=AckSpec(match=Match(kind=MatchKind.TEXT, value="ok")),
)
RICH = ConnectionSpec(
    name="x",
    url=URL,
    heartbeat=HeartbeatSpec(interval_ns=10 * SECOND_NS, timeout_ns=5 * SECOND_NS, misses=2),
    subscribe=ACKED,
    outbound=OutboundLimit(messages=2, per_ns=SECOND_NS),
    liveness=LivenessSpec(
        max_silence_ns=30 * SECOND_NS,
        data_silence_ns=5 * SECOND_NS,
        first_data_timeout_ns=20 * SECOND_NS,
    ),
    reconnect=ReconnectSpec(max_attempts=9),
)


@given(
    st.sampled_from([SPEC, RICH]),
    st.lists(st.tuples(st.integers(0, 40 * SECOND_NS), FACTS), max_size=100),
)
def test_in_any_order_of_facts_there_is_one_socket_at_most_and_one_end(spec, steps):
    session = Session(spec)
    now_ns, sockets, ends, dials = 0, 0, 0, 0
    facts = [(0, Started()), *steps]
    for gap, fact in facts:
        now_ns += gap
        if isinstance(fact, Lost | Postponed):
            if not sockets:  # a wire that was never opened cannot be lost
                continue
            if isinstance(fact, Lost) or session.state is State.DIALING:
                sockets -= 1
        for action in session.handle(now_ns, fact):
            match action:
                case Dial(number, reserved):
                    dials += not reserved
                    sockets += 1
                    assert number == dials
                case heartbeat_facts.SendPing(seq):
                    session.handle(now_ns, heartbeat_facts.Sending(seq, b"%d" % seq))
                case EndWorker():
                    ends += 1
        assert sockets <= 1
        assert ends == (session.state is State.CLOSED)
        assert (session.up_ns != 0) <= (session.state in (State.UP, State.STALE, State.DRAINING))


def opened(spec, at=0, logins=()):
    session = Session(spec)
    session.handle(at, Started())
    session.handle(at, Connected("p"))
    return session, session.handle(at, Opened(logins))


def connection(**keys):
    return ConnectionSpec(name="x", url=URL, heartbeat=None, **keys)


def test_the_welcome_is_waited_for_before_anything_is_said():
    session, actions = opened(connection(subscribe=ACKED), logins=(b"login",))
    assert actions == ()
    assert session.awaiting_ready
    assert session.deadline_ns == ReconnectSpec().connect_timeout_ns
    (said,) = session.handle(5, ReadySeen())
    assert said == Say((b"login", b"a", b"b")), "the login first"
    assert session.state is State.SUBSCRIBING


def test_a_welcome_that_does_not_come_is_a_connect_timeout():
    session, _ = opened(connection(subscribe=ACKED))
    assert session.handle(session.deadline_ns, Tick()) == (AbortWire(),)
    assert down(session.handle(10**11, LOST)).cause == "connect_timeout"


def test_up_is_when_every_subscription_has_been_answered():
    session, _ = opened(connection(subscribe=ACKED))
    session.handle(5, ReadySeen())
    assert session.handle(6, AckSeen()) == ()
    (up,) = events(session.handle(7, AckSeen()))
    assert (up.kind, session.state) == (EventKind.UP, State.UP)
    assert not session.awaiting_acks


def test_a_refused_subscription_closes_and_is_not_hammered():
    session, _ = opened(connection(subscribe=ACKED))
    session.handle(5, ReadySeen())
    assert session.handle(6, AckSeen("no such topic")) == (CloseWire(1000, "", wait=True),)
    event = down(session.handle(7, LOST))
    assert (event.cause, event.detail["error"]) == ("subscribe_refused", "no such topic")
    assert event.delay_s == SPEC.reconnect.max_delay_ns / SECOND_NS


def test_subscriptions_that_are_not_answered_in_time_end_the_session():
    session, _ = opened(connection(subscribe=ACKED))
    session.handle(5, ReadySeen())
    assert session.deadline_ns == 5 + 10 * SECOND_NS
    session.handle(session.deadline_ns, Tick())
    assert down(session.handle(10**11, LOST)).cause == "subscribe_timeout"


def test_a_long_list_is_said_at_the_pace_allowed_and_pings_go_meanwhile():
    beat = HeartbeatSpec(interval_ns=SECOND_NS, timeout_ns=SECOND_NS, first_ns=SECOND_NS // 2)
    spec = ConnectionSpec(
        name="x",
        url=URL,
        heartbeat=beat,
        subscribe=SubscribeSpec(messages=tuple("abcdef")),
        outbound=OutboundLimit(messages=3, per_ns=SECOND_NS),
    )
    session, actions = opened(spec)
    assert actions == (Say((b"a", b"b")),), "one place is left for a ping"
    sent = [(0, 2)]
    while session.state is not State.UP:
        now_ns = session.deadline_ns
        for action in session.handle(now_ns, Tick()):
            match action:
                case Say(texts):
                    sent.append((now_ns, len(texts)))
                case heartbeat_facts.SendPing(seq):
                    session.handle(now_ns, heartbeat_facts.Sending(seq, b"%d" % seq))
                    session.handle(now_ns, heartbeat_facts.PongFrame(b"%d" % seq))
                    sent.append((now_ns, 1))
    assert sum(count for _at, count in sent) >= 8
    for at, _count in sent:
        window = [count for when, count in sent if at <= when < at + SECOND_NS]
        assert sum(window) <= 3


def test_a_place_is_left_for_every_ping_of_the_limits_time():
    beat = HeartbeatSpec(interval_ns=SECOND_NS // 4, timeout_ns=SECOND_NS // 8, first_ns=1)
    spec = ConnectionSpec(
        name="x",
        url=URL,
        heartbeat=beat,
        subscribe=SubscribeSpec(messages=tuple("abcdef")),
        outbound=OutboundLimit(messages=6, per_ns=SECOND_NS),
    )
    _session, actions = opened(spec)
    assert actions == (Say((b"a", b"b")),), "four of six are for pings"


def test_a_dial_without_budget_waits_and_goes_with_the_number_it_had():
    session = Session(SPEC)
    session.handle(0, Started())
    assert session.handle(1, Postponed(500)) == ()
    assert (session.state, session.deadline_ns) == (State.WAITING, 501)
    assert session.handle(501, Tick()) == (Dial(1, reserved=True),)


def test_the_wait_that_the_exchange_asks_for_is_kept():
    session = Session(SPEC)
    session.handle(0, Started())
    session.handle(1, Connected("p"))
    refused = Lost("handshake_refused", 0.0, status=429, retry_after_ns=77 * SECOND_NS)
    assert down(session.handle(2, refused)).delay_s == 77


def test_a_refusal_of_the_exchanges_own_kind_is_not_hammered():
    spec = connection(reconnect=ReconnectSpec(refusals=(4009,)))
    session, _ = opened(spec)
    event = down(session.handle(5, Lost("peer_closed", 0.0, code=4009)))
    assert event.delay_s == spec.reconnect.max_delay_ns / SECOND_NS


def test_after_so_many_attempts_in_a_row_it_gives_up():
    session = Session(connection(reconnect=ReconnectSpec(max_attempts=3)))
    session.handle(0, Started())
    for _ in range(2):
        assert down(session.handle(1, LOST)).delay_s is not None
        session.handle(session.deadline_ns, Tick())
    last, end = session.handle(1, LOST)
    assert last.announcement.delay_s is None
    assert end == EndWorker(Exit.UNAVAILABLE)


def test_wrong_credentials_end_the_worker_for_good():
    session = Session(connection())
    session.handle(0, Started())
    lost = Lost("login_failed", 0.0, permanent=Exit.CREDENTIALS)
    assert session.handle(1, lost)[-1] == EndWorker(Exit.CREDENTIALS)


def looked(session, at, heard, unread=0):
    """Let the silence be judged at ``at``: a look into the socket first, then what it says."""
    (look,) = session.handle(at, Tick(heard))
    assert isinstance(look, heartbeat_facts.Look)
    assert look.since_ns < at
    assert session.handle(at, Tick(heard)) == (), "it looks already"
    assert session.handle(at, heartbeat_facts.Looked(unread)) == ()
    assert session.deadline_ns == 0, "judged at once"
    return session.handle(at, Tick(heard))


def test_what_waited_in_the_socket_ends_the_silence_and_the_next_is_looked_for_anew():
    session, _ = opened(connection(liveness=LivenessSpec(max_silence_ns=100)), at=10)
    session.handle(110, Tick(Heard()))
    assert session.deadline_ns is None
    session.handle(112, heartbeat_facts.Looked())
    assert session.handle(113, Tick(Heard(frame_ns=111))) == ()
    assert session.deadline_ns == 211
    timeout, _close = looked(session, 211, Heard(frame_ns=111))
    assert timeout.announcement.cause == "silence"


def test_a_silence_behind_what_we_could_not_read_is_our_own():
    session, _ = opened(connection(liveness=LivenessSpec(max_silence_ns=100)), at=10)
    timeout, _close = looked(session, 110, Heard(), unread=7)
    assert timeout.announcement.cause == "busy"
    assert timeout.announcement.detail["unread_bytes"] == 7


def test_silence_of_data_is_stale_and_the_next_data_is_fresh():
    session, _ = opened(connection(liveness=LivenessSpec(data_silence_ns=100)), at=10)
    assert session.deadline_ns == 110
    assert session.handle(110, Tick(Heard(frame_ns=60, data_ns=60))) == ()
    assert session.deadline_ns == 160, "what was heard meanwhile moves it"
    (stale,) = events(looked(session, 160, Heard(frame_ns=150, data_ns=60)))
    assert (stale.kind, stale.cause, session.state) == (
        EventKind.STALE,
        "data_silence",
        State.STALE,
    )
    assert session.deadline_ns is None, "told once"
    (fresh,) = events(session.handle(170, DataSeen()))
    assert (fresh.kind, session.state) == (EventKind.FRESH, State.UP)
    assert session.deadline_ns == 270


@pytest.mark.parametrize(
    ("keys", "heard", "at", "cause"),
    [
        ({"max_silence_ns": 100}, Heard(frame_ns=50), 150, "silence"),
        ({"max_silence_ns": 100}, Heard(), 110, "silence"),
        ({"first_data_timeout_ns": 100}, Heard(frame_ns=90), 110, "no_first_data"),
    ],
)
def test_a_silent_exchange_is_declared_dead(keys, heard, at, cause):
    session, _ = opened(connection(liveness=LivenessSpec(**keys)), at=10)
    assert session.handle(at - 1, Tick(heard)) == ()
    assert session.deadline_ns == at
    timeout, close = looked(session, at, heard)
    assert (timeout.announcement.kind, timeout.announcement.cause) == (EventKind.TIMEOUT, cause)
    assert isinstance(close, CloseWire)
    assert not close.wait


def test_the_first_data_ends_the_wait_for_it():
    session, _ = opened(connection(liveness=LivenessSpec(first_data_timeout_ns=100)), at=10)
    assert session.handle(110, Tick(Heard(frame_ns=20, data_ns=20))) == ()
    assert session.deadline_ns is None


@pytest.mark.parametrize(("idle_only", "dies"), [(False, True), (True, False)])
def test_the_exchanges_own_heartbeat_may_not_fail(idle_only, dies):
    theirs = ServerHeartbeat(
        match=Match(kind=MatchKind.TEXT, value="hb"), max_gap_ns=100, idle_only=idle_only
    )
    session, _ = opened(connection(server_heartbeat=theirs), at=10)
    heard = Heard(frame_ns=140, data_ns=140, heartbeat_ns=50)
    if dies:
        assert looked(session, 150, heard)[0].announcement.cause == "heartbeat_gap"
    else:
        assert session.handle(150, Tick(heard)) == ()


TOPICS = SubscribeSpec(
    topics=("a", "b"), template="+${topics}${seq}", cancel_template="-${topics}${seq}"
)


def test_a_changed_list_is_told_to_the_exchange_without_a_new_session():
    session, actions = opened(connection(subscribe=TOPICS))
    assert actions[0] == Say((b'+["a","b"]1',))
    said, say = session.handle(5, SubscriptionWanted(replace(TOPICS, topics=("b", "c", "d"))))
    assert (said.announcement.kind, said.announcement.cause) == (
        EventKind.CONFIG,
        "subscription_changed",
    )
    assert (said.announcement.detail["subscribed"], said.announcement.detail["unsubscribed"]) == (
        2,
        1,
    )
    assert say == Say((b'-["a"]2', b'+["c","d"]3'))
    assert session.state is State.UP


def test_a_change_that_cannot_be_told_makes_a_new_session():
    session, _ = opened(connection(subscribe=SubscribeSpec(messages=("a", "b"))))
    assert session.handle(5, SubscriptionWanted(SubscribeSpec(messages=("b",)))) == (
        CloseWire(1000, "", wait=True),
    )
    assert down(session.handle(6, LOST)).cause == "subscription_changed"
    session.handle(session.deadline_ns, Tick())
    session.handle(7, Connected("p"))
    assert session.handle(8, Opened())[0] == Say((b"b",))


def test_every_state_has_its_transitions_and_a_word_of_its_own():
    assert set(TRANSITIONS) == set(State)
    assert sorted(state.value for state in State) == list(range(len(State)))
    assert [state for state, after in TRANSITIONS.items() if not after] == [State.CLOSED]
