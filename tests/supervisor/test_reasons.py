"""Sentences on a connection: each state has a reason and a next step, with its time if known."""

from dataclasses import replace

import pytest
from slots import slot

from supervisor.reasons import Session, reason
from supervisor.restart_facts import Remembered
from supervisor.restart_state import State
from supervisor.slot import ExitRecord
from supervisor.status import STATES
from worker.announcement import Announcement, EventKind
from worker.spec import SECOND_NS

NOW_NS = 1000 * SECOND_NS
SLOT = slot()
NO_SESSION = Session("none")


def after(code=None, signal=None, cause="crash"):
    detail = {"code": code} if code is not None else {"signal": signal}
    return ExitRecord(Announcement(kind=EventKind.EXIT, cause=cause, detail=detail), 1)


def said(state, slot=SLOT, session=NO_SESSION, watched=True):
    return reason(state, slot, session, watched=watched, now_ns=NOW_NS)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("watched", [True, False])
def test_every_state_has_a_reason_and_a_next_step(state, watched):
    found = said(state, watched=watched)
    assert found.why
    assert found.next


def test_who_stopped_it_is_told_and_how_it_is_started():
    life = Remembered(stop_cause="operator", since_ns=NOW_NS - 3 * SECOND_NS)
    found = said("stopped", replace(SLOT, wanted=False, state=State.STOPPED, pid=0, life=life))
    assert found.why == "an operator stopped it 3.0s ago"
    assert found.mend == "supervisor start a"


@pytest.mark.parametrize(("code", "words"), [(77, "renew the secret"), (78, "mend fleet.toml")])
def test_a_failure_tells_what_the_operator_must_do(code, words):
    slot = replace(SLOT, state=State.FAILED, pid=0, last_exit=after(code, cause="exit"))
    found = said("failed", slot)
    assert str(code) in found.why
    assert words in found.mend
    assert found.next == "nothing: it is not retried"


def test_memory_that_ran_out_is_no_matter_of_last_words():
    slot = replace(SLOT, state=State.BACKOFF, pid=0, last_exit=after(None, "SIGKILL", "oom"))
    found = said("backoff", slot)
    assert "ended by oom SIGKILL" in found.why
    assert found.mend.startswith("give the machine or its cgroup more memory")


def test_a_crash_loop_tells_when_the_next_try_is():
    life = Remembered(why="crash", attempt=6, deaths=(1, 2, 3, 4, 5))
    slot = replace(
        SLOT,
        state=State.BACKOFF,
        pid=0,
        crash_loop=True,
        next_attempt_ns=NOW_NS + 2 * SECOND_NS,
        last_exit=after(1),
        life=life,
    )
    found = said("crash_loop", slot)
    assert "the last one ended by crash code 1" in found.why
    assert "5 deaths" in found.why
    assert found.in_s == 2
    assert said("crash_loop", slot, watched=False).mend.startswith("run the fleet again")


def test_a_refused_fork_is_told_with_its_error():
    life = Remembered(why="spawn_failed: EAGAIN")
    assert "EAGAIN" in said("backoff", replace(SLOT, state=State.BACKOFF, life=life)).why


def test_a_turn_in_a_storm_is_told():
    slot = replace(SLOT, state=State.BACKOFF, last_exit=after(signal="SIGKILL", cause="signal"))
    found = said("backoff", replace(slot, life=Remembered(why="storm")))
    assert "signal SIGKILL" in found.why
    assert "waits for its turn" in found.why


def test_a_hung_worker_has_until_its_timeout():
    slot = replace(SLOT, hung=True, life=Remembered(hang_timeout_ns=5 * SECOND_NS))
    found = said("hung", slot, Session("up", stamp_ns=NOW_NS - 2 * SECOND_NS))
    assert found.why == "its loop gave no sign for 2.0s"
    assert found.in_s == 3


def test_what_is_being_ended_tells_why_and_when_it_is_killed():
    life = Remembered(kill_cause="hang", deadline_ns=NOW_NS + SECOND_NS)
    found = said("hung", replace(SLOT, state=State.KILLING, life=life))
    assert "hang" in found.why
    assert found.in_s == 1
    assert "fresh process" in found.next


def test_a_session_that_waits_tells_why_it_ended_and_when_it_dials():
    down = {"cause": "handshake_refused", "detail": {"status": 503, "session": 4}, "delay_s": 9.0}
    waiting = Session("waiting", down=down, down_ns=NOW_NS - 4 * SECOND_NS)
    found = said("connecting", SLOT, waiting)
    assert "handshake_refused (status 503)" in found.why
    assert (found.next, found.in_s) == ("it dials again", 5)


def test_a_session_that_waits_beyond_its_delay_waits_for_the_budget():
    waiting = Session("waiting", since_ns=NOW_NS - SECOND_NS)
    found = said("connecting", SLOT, waiting)
    assert "connect budget" in found.why


def test_a_crash_loop_that_is_up_tells_when_it_is_forgotten():
    life = Remembered(up_since_ns=NOW_NS - 20 * SECOND_NS, reset_after_ns=60 * SECOND_NS)
    found = said("up", replace(SLOT, crash_loop=True, life=life), Session("up"))
    assert found.in_s == 40
