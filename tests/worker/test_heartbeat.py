import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.heartbeat import TRANSITIONS, Heartbeat, State
from worker.heartbeat_facts import (
    CountForeignPong,
    CountLatePong,
    DeclareDead,
    Look,
    Looked,
    PongElsewhere,
    PongFrame,
    PongMessage,
    SendFailed,
    Sending,
    SendPing,
    Sent,
    TakePong,
    Tick,
)
from worker.spec import HeartbeatSpec, Match, MatchKind

UP = 1_000
SPEC = HeartbeatSpec(interval_ns=100, timeout_ns=40, first_ns=10)
MATCH = Match(kind=MatchKind.TEXT, value="pong")
APPLICATION = HeartbeatSpec(
    interval_ns=100,
    timeout_ns=40,
    first_ns=10,
    application=True,
    payload=b"ping",
    pong_matcher=MATCH,
)


def body(seq):
    return b"%d" % seq


def ping(beat, now_ns):
    """Let the timer expire at ``now_ns`` and send what it asks for."""
    (action,) = beat.handle(now_ns, Tick())
    assert isinstance(action, SendPing)
    beat.handle(now_ns, Sending(action.seq, body(action.seq)))
    beat.handle(now_ns, Sent(action.seq))
    return action.seq


def die(beat, now_ns, looked=Looked()):  # noqa: B008 - it is frozen
    (look,) = beat.handle(now_ns, Tick())
    assert isinstance(look, Look)
    return beat.handle(now_ns, looked)


def test_pings_stand_on_an_absolute_timetable_whatever_the_round_trips_take():
    beat = Heartbeat(SPEC, UP)
    sent = []
    for rtt in itertools.islice(itertools.cycle((0, 7, 39, 1)), 100):
        sent.append(beat.deadline_ns)
        seq = ping(beat, beat.deadline_ns)
        beat.handle(sent[-1] + rtt, PongFrame(body(seq)))
    assert sent == [UP + 10 + 100 * n for n in range(100)]


def test_a_round_trip_begins_when_the_ping_was_written():
    beat = Heartbeat(SPEC, UP)
    beat.handle(UP + 10, Tick())
    beat.handle(UP + 10, Sending(1, body(1)))
    beat.handle(UP + 15, Sent(1))
    assert beat.handle(UP + 20, PongFrame(body(1))) == (TakePong(1, 5),)


def test_a_pong_that_was_read_before_its_ping_was_sent_answers_nothing():
    """Somebody guessed its body; it was found only now among what had been read."""
    beat = Heartbeat(SPEC, UP)
    seq = ping(beat, UP + 10)
    assert beat.handle(UP + 9, PongFrame(body(seq))) == (CountForeignPong(),)
    assert beat.state is State.AWAITING


def test_points_passed_while_stopped_are_skipped_not_made_up_for():
    beat = Heartbeat(SPEC, UP)
    seq = ping(beat, UP + 1_234)
    assert beat.handle(UP + 1_235, PongFrame(body(seq))) == (TakePong(seq, 1),)
    assert beat.deadline_ns == UP + 10 + 1_300


def test_an_early_tick_does_nothing():
    beat = Heartbeat(SPEC, UP)
    assert beat.handle(UP + 9, Tick()) == ()
    assert beat.state is State.RESTING


def test_no_pong_is_death_at_the_timeout_declared_once():
    beat = Heartbeat(SPEC, UP)
    seq = ping(beat, UP + 10)
    assert beat.handle(UP + 49, Tick()) == ()
    assert beat.deadline_ns == UP + 50
    assert die(beat, UP + 50) == (DeclareDead("ping_timeout", seq, 40, Looked()),)
    assert beat.handle(UP + 51, Tick()) == beat.handle(UP + 51, Looked()) == ()
    assert beat.deadline_ns is None


def test_the_look_is_for_the_time_since_the_ping():
    beat = Heartbeat(SPEC, UP)
    ping(beat, UP + 10)
    assert beat.handle(UP + 60, Tick()) == (Look(since_ns=UP + 10),)


@pytest.mark.parametrize(
    ("looked", "cause"),
    [
        (Looked(), "ping_timeout"),
        (Looked(unread=1), "busy"),
        (Looked(lag_ns=4_999_999_999), "ping_timeout"),
        (Looked(lag_ns=5_000_000_000), "busy"),
    ],
)
def test_what_we_did_not_read_or_half_the_time_without_us_is_our_own_trouble(looked, cause):
    second = 10**9
    beat = Heartbeat(HeartbeatSpec(interval_ns=30 * second, timeout_ns=10 * second), UP)
    seq = ping(beat, beat.deadline_ns)
    assert die(beat, beat.deadline_ns, looked) == (DeclareDead(cause, seq, 10 * second, looked),)


def test_a_short_pause_of_ours_excuses_no_exchange_however_short_the_timeout():
    beat = Heartbeat(SPEC, UP)
    ping(beat, UP + 10)
    (dead,) = die(beat, UP + 50, Looked(lag_ns=249_999_999))
    assert dead.cause == "ping_timeout"


def test_a_pong_found_in_the_socket_by_the_look_saves_the_session_without_a_sample():
    beat = Heartbeat(SPEC, UP)
    seq = ping(beat, UP + 10)
    assert isinstance(beat.handle(UP + 60, Tick())[0], Look)
    assert beat.handle(UP + 61, PongFrame(body(seq))) == (TakePong(seq, None),)
    assert beat.handle(UP + 61, Looked()) == ()
    assert beat.state is State.RESTING


def test_a_late_pong_saves_nothing_and_counts_once():
    beat = Heartbeat(SPEC, UP)
    seq = ping(beat, UP + 10)
    die(beat, UP + 50)
    assert beat.handle(UP + 70, PongFrame(body(seq))) == (CountLatePong(60),)
    assert beat.handle(UP + 71, PongFrame(body(seq))) == (CountForeignPong(),)
    assert beat.state is State.DEAD


@pytest.mark.parametrize("stray", [b"", b"other", b"2"])
def test_a_pong_of_another_body_answers_nothing(stray):
    beat = Heartbeat(SPEC, UP)
    ping(beat, UP + 10)
    assert beat.handle(UP + 11, PongFrame(stray)) == (CountForeignPong(),)
    assert beat.awaiting


def test_a_duplicate_pong_is_foreign():
    beat = Heartbeat(SPEC, UP)
    seq = ping(beat, UP + 10)
    beat.handle(UP + 11, PongFrame(body(seq)))
    assert beat.handle(UP + 12, PongFrame(body(seq))) == (CountForeignPong(),)


def test_a_ping_that_cannot_be_sent_is_death_at_once():
    beat = Heartbeat(SPEC, UP)
    beat.handle(UP + 10, Tick())
    assert beat.handle(UP + 10, SendFailed()) == (DeclareDead("send_failed", 1, 0),)


def test_several_outstanding_pings_die_by_the_oldest_and_live_by_the_latest():
    beat = Heartbeat(HeartbeatSpec(interval_ns=100, timeout_ns=250, first_ns=10), UP)
    first, second = ping(beat, UP + 10), ping(beat, UP + 110)
    assert beat.deadline_ns == UP + 210
    third = ping(beat, UP + 210)
    assert beat.deadline_ns == UP + 10 + 250
    assert beat.handle(UP + 215, PongFrame(body(second))) == (TakePong(second, 105),)
    assert beat.handle(UP + 216, PongFrame(body(first))) == (CountForeignPong(),)
    assert beat.deadline_ns == UP + 310
    ping(beat, UP + 310)
    assert beat.deadline_ns == UP + 410
    ping(beat, UP + 410)
    assert beat.deadline_ns == UP + 210 + 250
    assert die(beat, UP + 460) == (DeclareDead("ping_timeout", third, 250, Looked()),)


def test_a_pong_to_a_ping_outside_the_timetable_answers_those_before_it():
    """RFC 6455 section 5.5.3 lets a peer answer only the latest of several pings."""
    beat = Heartbeat(SPEC, UP)
    sent_ns = UP + SPEC.first_ns
    ping(beat, sent_ns)
    assert beat.handle(sent_ns + 20, PongElsewhere(sent_ns - 1)) == ()
    assert beat.state is State.AWAITING
    assert beat.handle(sent_ns + 20, PongElsewhere(sent_ns + 1)) == ()
    assert beat.state is State.RESTING
    assert beat.deadline_ns == sent_ns + SPEC.interval_ns
    ping(beat, sent_ns + SPEC.interval_ns)
    die(beat, sent_ns + SPEC.interval_ns + SPEC.timeout_ns)
    assert beat.handle(sent_ns + 2 * SPEC.interval_ns, PongElsewhere(sent_ns + 200)) == ()
    assert beat.state is State.DEAD


def test_a_pong_frame_outside_the_timetable_answers_no_application_ping():
    beat = Heartbeat(APPLICATION, UP)
    ping(beat, UP + 10)
    assert beat.handle(UP + 20, PongElsewhere(UP + 15)) == ()
    assert beat.state is State.AWAITING


def test_an_application_pong_completes_the_ping_and_a_pong_frame_does_not():
    beat = Heartbeat(APPLICATION, UP)
    seq = ping(beat, UP + 10)
    assert beat.handle(UP + 20, PongFrame(body(seq))) == (CountForeignPong(),)
    assert beat.handle(UP + 30, PongMessage(None)) == (TakePong(seq, 20),)


def test_echoed_numbers_match_their_own_ping_only():
    spec = HeartbeatSpec(
        interval_ns=100,
        timeout_ns=250,
        first_ns=10,
        application=True,
        payload=b"${seq}",
        pong_matcher=MATCH,
        pong_id="id",
    )
    beat = Heartbeat(spec, UP)
    first, second = ping(beat, UP + 10), ping(beat, UP + 110)
    for stray in (None, "", "0", "-1", "3", "x", "9" * 10_000):
        assert beat.handle(UP + 111, PongMessage(stray)) == (CountForeignPong(),)
    assert beat.handle(UP + 115, PongMessage(str(first))) == (TakePong(first, 105),)
    assert beat.handle(UP + 116, PongMessage(str(second))) == (TakePong(second, 6),)


EVENTS = st.one_of(
    st.just(Tick()),
    st.just(Looked()),
    st.just(SendFailed()),
    st.integers(0, 12).map(lambda seq: PongFrame(body(seq))),
    st.integers(UP, UP + 1_000).map(PongElsewhere),
)


@given(
    st.integers(1, 300),
    st.lists(st.tuples(st.integers(0, 120), EVENTS), max_size=120),
    st.booleans(),
)
def test_whatever_happens_death_is_final_and_samples_are_true(timeout_ns, steps, send_works):
    beat = Heartbeat(HeartbeatSpec(interval_ns=100, timeout_ns=timeout_ns, first_ns=10), UP)
    now_ns, sent, answered, deaths, seen = UP, {}, set(), 0, set()
    for gap, event in steps:
        now_ns += gap
        before = beat.state
        for action in beat.handle(now_ns, event):
            match action:
                case SendPing(seq) if send_works:
                    assert seq == len(sent) + 1
                    sent[seq] = now_ns
                    beat.handle(now_ns, Sending(seq, body(seq)))
                    beat.handle(now_ns, Sent(seq))
                case SendPing():
                    deaths += len(beat.handle(now_ns, SendFailed()))
                case TakePong(seq, rtt_ns):
                    assert deaths == 0
                    assert seq not in answered
                    answered |= {number for number in sent if number <= seq}
                    if rtt_ns is not None:
                        assert 0 <= rtt_ns == now_ns - sent[seq] <= timeout_ns
                case DeclareDead():
                    deaths += 1
        seen.add((before, beat.state))
        assert deaths <= 1
        assert (beat.state is State.DEAD) == (deaths == 1)
        assert all(old is new or new in reachable(old) for old, new in seen)


def reachable(state):
    """States within two transitions: an event and its answer may be one step of a test."""
    near = TRANSITIONS[state]
    return near.union(*(TRANSITIONS[other] for other in near)) | {state}


def test_every_state_has_its_transitions_and_only_death_is_final():
    assert set(TRANSITIONS) == set(State)
    assert [state for state, after in TRANSITIONS.items() if not after] == [State.DEAD]
