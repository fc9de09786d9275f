"""The process policy, walked by hand and by hypothesis, with integers for time."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from process_facts import FACTS

from supervisor.liveness import LATE_NS
from supervisor.pace import BURST, TURN_NS, Pace
from supervisor.restart import ABORT_GRACE_NS, WorkerLife
from supervisor.restart_facts import (
    Announce,
    Down,
    Exited,
    Hung,
    KillWanted,
    MemoryHigh,
    Ready,
    RestartWanted,
    Signal,
    Spawn,
    Spawned,
    SpawnFailed,
    Stamped,
    StartWanted,
    StopWanted,
    Tick,
    Up,
)
from supervisor.restart_state import NO_PROCESS, TRANSITIONS, State
from worker.announcement import Cause
from worker.spec import SECOND_NS, ConnectionSpec, CrashLoopSpec, RestartSpec

MIDDLE = 0.5  # the jitter's draw that changes nothing


def life(**restart):
    spec = ConnectionSpec(name="a", url="ws://h/", restart=RestartSpec(**restart))
    return WorkerLife(spec)


def running(now_ns=0, **restart):
    worker = life(**restart)
    worker.handle(now_ns, StartWanted())
    worker.handle(now_ns, Spawned())
    worker.handle(now_ns, Ready())
    return worker


def kinds(actions):
    return [a.announcement.kind.label for a in actions if isinstance(a, Announce)]


def shape(actions):
    """Actions in order, announcements by their label."""
    return [a.announcement.kind.label if isinstance(a, Announce) else a for a in actions]


def delay_s(actions):
    return next(
        a.announcement.delay_s
        for a in actions
        if isinstance(a, Announce) and a.announcement.delay_s is not None
    )


def test_start_forks_once():
    worker = life()
    assert shape(worker.handle(0, StartWanted())) == [Spawn()]
    assert worker.handle(1, StartWanted()) == ()
    assert worker.state is State.STARTING


def test_a_worker_that_was_up_for_stable_after_is_replaced_at_once_and_in_order():
    worker = running()
    worker.handle(0, Up())
    actions = worker.handle(10 * SECOND_NS, Exited(None, "SIGKILL", MIDDLE))
    assert shape(actions) == ["exit", "restart", Spawn()]
    assert worker.restarts == 1


def test_a_worker_that_was_up_too_shortly_waits():
    worker = running()
    worker.handle(0, Up())
    actions = worker.handle(10 * SECOND_NS - 1, Exited(None, "SIGKILL", MIDDLE))
    assert shape(actions) == ["exit", "backoff"]
    assert worker.state is State.BACKOFF
    assert shape(worker.handle(worker.deadline_ns, Tick())) == ["restart", Spawn()]


def test_uptime_counts_though_the_session_was_just_lost():
    worker = running()
    worker.handle(0, Up())
    worker.handle(11 * SECOND_NS, Down())
    assert Spawn() in worker.handle(12 * SECOND_NS, Exited(1, None, MIDDLE))


def test_delays_double_to_the_cap():
    worker, delays = running(crash_loop=None), []
    now_ns = 0
    for _ in range(11):
        actions = worker.handle(now_ns, Exited(1, None, MIDDLE))
        delays.append(delay_s(actions))
        now_ns = worker.deadline_ns
        worker.handle(now_ns, Tick())
        worker.handle(now_ns, Ready())
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]


@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.75), (0.5, 1.0), (0.999999, 1.25)])
def test_jitter_is_a_quarter_either_way(draw, factor):
    actions = running().handle(0, Exited(1, None, draw))
    assert delay_s(actions) == pytest.approx(0.1 * factor, rel=1e-4)


def test_the_doubling_is_forgotten_after_reset_after_up():
    worker = running(crash_loop=None)
    for _ in range(3):
        worker.handle(0, Exited(1, None, MIDDLE))
        worker.handle(worker.deadline_ns, Tick())
        worker.handle(0, Ready())
    worker.handle(0, Up())
    worker.handle(60 * SECOND_NS, Down())
    worker.handle(60 * SECOND_NS, Exited(1, None, MIDDLE))  # at once: it had been up
    worker.handle(60 * SECOND_NS, Ready())
    assert delay_s(worker.handle(60 * SECOND_NS, Exited(1, None, MIDDLE))) == 0.1


def test_five_deaths_in_a_minute_raise_the_flag_and_the_floor_and_never_end_the_retries():
    worker = running()
    said = []
    for second in range(5):
        said += kinds(worker.handle(second * SECOND_NS, Exited(1, None, MIDDLE)))
        worker.handle(worker.deadline_ns, Tick())
        worker.handle(second * SECOND_NS, Ready())
    assert said.count("crash_loop") == 1
    assert worker.crash_loop
    now_ns = 5 * SECOND_NS
    worker.handle(now_ns, Exited(1, None, MIDDLE))
    assert worker.deadline_ns - now_ns >= 5 * SECOND_NS


def test_the_crash_loop_is_left_after_reset_after_up():
    worker = running(crash_loop=CrashLoopSpec(deaths=1))
    worker.handle(0, Exited(1, None, MIDDLE))
    worker.handle(worker.deadline_ns, Tick())
    worker.handle(6 * SECOND_NS, Ready())
    worker.handle(6 * SECOND_NS, Up())
    assert worker.crash_loop
    worker.handle(66 * SECOND_NS, Tick())
    assert not worker.crash_loop


def test_kills_by_an_operator_do_not_count_against_the_crash_loop():
    worker = running()
    for second in range(10):
        actions = worker.handle(second * SECOND_NS, KillWanted("SIGKILL"))
        assert shape(actions) == ["kill", Signal("SIGKILL")]
        actions = worker.handle(second * SECOND_NS, Exited(None, "SIGKILL", MIDDLE))
        assert worker.last_exit.cause == "operator"
        worker.handle(worker.deadline_ns, Tick())
        worker.handle(second * SECOND_NS, Ready())
    assert not worker.crash_loop


@pytest.mark.parametrize(("code", "cause"), [(77, "credentials"), (78, "configuration")])
def test_permanent_exit_codes_fail_at_once_and_are_named(code, cause):
    worker = running()
    actions = worker.handle(0, Exited(code, None, MIDDLE))
    assert kinds(actions) == ["exit", "failed"]
    assert {action.announcement.cause for action in actions} == {cause}
    assert worker.last_exit.cause == worker.exits[-1].cause == cause
    assert worker.state is State.FAILED
    assert worker.handle(10**18, Tick()) == ()


def test_an_operator_starts_a_failed_worker_again():
    worker = running()
    worker.handle(0, Exited(78, None, MIDDLE))
    assert Spawn() in worker.handle(1, StartWanted())


def test_exit_zero_is_unexpected_while_the_worker_is_wanted():
    worker = running()
    assert kinds(worker.handle(0, Exited(0, None, MIDDLE))) == ["exit", "backoff"]


def test_stop_terminates_then_kills():
    worker = running()
    actions = worker.handle(0, StopWanted())
    assert shape(actions) == ["stop", Signal("SIGTERM"), Signal("SIGCONT")]
    assert worker.handle(5 * SECOND_NS - 1, Tick()) == ()
    assert shape(worker.handle(5 * SECOND_NS, Tick())) == ["kill", Signal("SIGKILL")]
    assert shape(worker.handle(5 * SECOND_NS, Exited(None, "SIGKILL", MIDDLE))) == ["exit"]
    assert worker.state is State.STOPPED


def test_start_while_stopping_replaces_when_the_old_process_is_gone():
    worker = running()
    worker.handle(0, StopWanted())
    assert worker.handle(1, StartWanted()) == ()
    assert shape(worker.handle(2, Exited(0, None, MIDDLE))) == ["exit", "restart", Spawn()]


def test_stop_after_restart_wins():
    worker = running()
    worker.handle(0, RestartWanted())
    worker.handle(1, StopWanted())
    assert Spawn() not in worker.handle(2, Exited(0, None, MIDDLE))
    assert worker.state is State.STOPPED


def test_restart_in_backoff_forks_at_once_and_forgets_the_doubling():
    worker = running()
    worker.handle(0, Exited(1, None, MIDDLE))
    assert shape(worker.handle(1, RestartWanted())) == ["restart", Spawn()]
    assert worker.handle(2, Tick()) == ()


def test_a_hung_worker_is_aborted_for_its_stack_then_killed():
    worker = running()
    aborted = ["kill", Signal("SIGABRT"), Signal("SIGCONT")]
    assert shape(worker.handle(0, Hung(6 * SECOND_NS))) == aborted
    assert worker.handle(0, Hung(7 * SECOND_NS)) == ()
    assert shape(worker.handle(ABORT_GRACE_NS, Tick())) == ["kill", Signal("SIGKILL")]
    again_ns = ABORT_GRACE_NS + SECOND_NS
    assert worker.handle(again_ns - 1, Tick()) == ()
    assert worker.handle(again_ns, Tick()) == (Signal("SIGKILL"),), "no state waits for ever"
    assert worker.deadline_ns == again_ns + SECOND_NS
    worker.handle(ABORT_GRACE_NS, Exited(None, "SIGKILL", MIDDLE))
    assert worker.last_exit.cause == "hang"


def test_a_worker_whose_loop_never_turns_is_replaced_after_start_timeout_from_its_fork():
    worker = life()
    worker.handle(0, StartWanted())
    worker.handle(3 * SECOND_NS, Spawned())
    assert worker.handle(23 * SECOND_NS - 1, Tick()) == ()
    assert Signal("SIGABRT") in worker.handle(23 * SECOND_NS, Tick())
    worker.handle(23 * SECOND_NS, Exited(None, "SIGABRT", MIDDLE))
    assert worker.last_exit.cause == "start_timeout"
    assert worker.state is State.BACKOFF


def test_a_stamp_that_is_seen_before_the_report_of_the_fork_counts_as_one_after_it():
    worker = life()
    worker.handle(0, StartWanted())
    worker.handle(1, Stamped())
    worker.handle(2, Spawned())
    assert worker.deadline_ns == 2 + worker.spec.ready_timeout_ns


def test_a_worker_that_stamped_has_until_ready_timeout_to_serve():
    worker = life()
    worker.handle(0, StartWanted())
    worker.handle(0, Spawned())
    worker.handle(19 * SECOND_NS, Stamped())
    assert worker.handle(30 * SECOND_NS - 1, Tick()) == ()
    worker.handle(30 * SECOND_NS - 1, Stamped())
    assert Signal("SIGABRT") in worker.handle(30 * SECOND_NS, Tick())
    worker.handle(30 * SECOND_NS, Exited(None, "SIGABRT", MIDDLE))
    assert worker.last_exit.cause == "ready_timeout"


def test_a_ready_timeout_below_start_timeout_holds_from_the_fork():
    worker = WorkerLife(ConnectionSpec(name="a", url="ws://h/", ready_timeout_ns=3 * SECOND_NS))
    worker.handle(0, StartWanted())
    worker.handle(0, Spawned())
    assert Signal("SIGABRT") in worker.handle(3 * SECOND_NS, Tick())
    worker.handle(3 * SECOND_NS, Exited(None, "SIGABRT", MIDDLE))
    assert worker.last_exit.cause == "ready_timeout"


def test_a_start_is_given_its_time_once_more_by_who_comes_late():
    worker = life()
    worker.handle(0, StartWanted())
    worker.handle(0, Spawned())
    limit_ns = worker.deadline_ns
    late_ns = limit_ns + LATE_NS
    assert worker.handle(late_ns, Tick()) == ()
    assert worker.deadline_ns == late_ns + limit_ns
    assert kinds(worker.handle(late_ns + limit_ns + LATE_NS, Tick())) == ["kill"], "but once"


def test_a_start_is_not_given_more_by_who_comes_in_time():
    worker = life()
    worker.handle(0, StartWanted())
    worker.handle(0, Spawned())
    assert kinds(worker.handle(worker.deadline_ns + LATE_NS - 1, Tick())) == ["kill"]


def test_an_end_is_given_its_time_once_more_by_who_comes_late():
    worker = running()
    worker.handle(0, StopWanted())
    limit_ns = worker.deadline_ns
    assert worker.handle(limit_ns + LATE_NS, Tick()) == ()
    assert worker.deadline_ns == 2 * limit_ns + LATE_NS
    assert Signal("SIGKILL") in worker.handle(worker.deadline_ns, Tick())


def test_neither_limit_holds_once_it_serves():
    worker = life()
    worker.handle(0, StartWanted())
    worker.handle(0, Spawned())
    worker.handle(1, Stamped())
    worker.handle(2, Ready())
    worker.handle(3, Stamped())
    assert worker.handle(10**18, Tick()) == ()
    assert worker.state is State.RUNNING


def test_workers_that_fail_together_do_not_stay_in_step_at_the_floor():
    deadlines = set()
    for draw in (0.0, 0.3, 0.9):
        worker = running(crash_loop=CrashLoopSpec(deaths=1))
        worker.handle(0, Exited(1, None, draw))
        deadlines.add(worker.deadline_ns)
        assert worker.deadline_ns >= 5 * SECOND_NS
    assert len(deadlines) == 3


def fleet(count, **restart):
    """Lives of one fleet, all running and up for long."""
    pace, lives = Pace(), []
    for number in range(count):
        spec = ConnectionSpec(name=f"a{number}", url="ws://h/", restart=RestartSpec(**restart))
        worker = WorkerLife(spec, pace)
        worker.handle(-11 * SECOND_NS, StartWanted())
        worker.handle(-11 * SECOND_NS, Ready())
        worker.handle(-11 * SECOND_NS, Up())
        lives.append(worker)
    return lives


def test_of_many_that_die_at_once_a_few_are_replaced_at_once_and_the_others_in_turn():
    lives = fleet(50)
    said = [shape(life.handle(0, Exited(None, "SIGKILL", MIDDLE))) for life in lives]
    assert said[:BURST] == [["exit", "restart", Spawn()]] * BURST
    assert said[BURST:] == [["exit", "backoff"]] * (50 - BURST)
    waiting = [life.deadline_ns for life in lives[BURST:]]
    assert waiting == [TURN_NS * turn for turn in range(1, 46)]
    for worker in lives[BURST:]:
        assert worker.handle(worker.deadline_ns - 1, Tick()) == ()
        assert shape(worker.handle(worker.deadline_ns, Tick())) == ["restart", Spawn()]


def test_whose_delays_end_at_the_same_instant_take_turns_too():
    lives = fleet(20, stable_after_ns=60 * SECOND_NS)
    for worker in lives:
        assert shape(worker.handle(0, Exited(1, None, MIDDLE))) == ["exit", "backoff"]
    now_ns = lives[0].deadline_ns
    said = [shape(worker.handle(now_ns, Tick())) for worker in lives]
    assert said == [["restart", Spawn()]] * BURST + [["backoff"]] * (20 - BURST)


def test_an_operator_waits_for_nobody():
    lives = fleet(50)
    for worker in lives:
        worker.handle(0, Exited(1, None, MIDDLE))
    assert shape(lives[-1].handle(0, RestartWanted())) == ["restart", Spawn()]


def test_a_refused_fork_is_retried():
    worker = life()
    worker.handle(0, StartWanted())
    assert kinds(worker.handle(0, SpawnFailed("EAGAIN"))) == ["backoff"]
    assert Spawn() in worker.handle(worker.deadline_ns, Tick())


def test_every_state_is_in_the_table_and_every_state_is_left():
    assert set(TRANSITIONS) == set(State)
    assert all(TRANSITIONS.values())


@given(st.lists(st.tuples(st.integers(0, 40 * SECOND_NS), FACTS), max_size=60))
def test_whatever_happens_there_is_at_most_one_process_and_the_last_intent_is_reached(steps):
    worker, processes, pending, now_ns = life(), 0, 0, 0
    for elapsed_ns, fact in steps:
        now_ns += elapsed_ns
        if (
            isinstance(fact, Exited | Stamped | Ready | Up | Down | Hung | MemoryHigh)
            and not processes
        ):
            continue  # facts of a process that is not there
        if isinstance(fact, SpawnFailed) and not pending:
            continue
        processes -= isinstance(fact, Exited)
        pending -= isinstance(fact, SpawnFailed)
        actions = worker.handle(now_ns, fact)
        pending += actions.count(Spawn())
        assert processes + pending <= 1
        assert worker.state in NO_PROCESS or processes + pending == 1
        if pending and not isinstance(fact, SpawnFailed):
            worker.handle(now_ns, Spawned())
            processes, pending = processes + pending, 0
    if worker.wanted:
        if worker.state is State.FAILED:
            return
        for _ in range(4):
            if worker.state in NO_PROCESS:
                now_ns = worker.deadline_ns
                worker.handle(now_ns, Tick())
            worker.handle(now_ns, Ready())
            if worker.state is State.RUNNING:
                return
            worker.handle(now_ns, Exited(1, None, MIDDLE))
        raise AssertionError(worker.state)
    if worker.state not in NO_PROCESS:
        worker.handle(now_ns, Exited(0, None, MIDDLE))
    assert worker.state is State.STOPPED


def test_every_step_of_the_table_is_taken_by_some_history():
    """A table wider than the machine would hide a wrong step."""
    seen = set()
    openers = [(), (Up(),), (StopWanted(),), (RestartWanted(),), (Hung(6 * SECOND_NS),)]
    closers = [
        StartWanted(),
        StopWanted(),
        RestartWanted(),
        SpawnFailed(""),
        Ready(),
        Hung(0),
        Exited(1, None, MIDDLE),
        Exited(78, None, MIDDLE),
        Exited(0, None, MIDDLE),
        Tick(),
    ]
    for ready, opener, history in itertools.product(
        (True, False), openers, itertools.product(closers, repeat=3)
    ):
        worker = life()
        now_ns = 0
        facts = [StartWanted(), *([Ready()] if ready else []), *opener, *history]
        for fact in facts:
            before = worker.state
            if isinstance(fact, Exited | SpawnFailed) and before in NO_PROCESS:
                break
            now_ns += 11 * SECOND_NS if isinstance(fact, Tick | Exited) else 1
            worker.handle(now_ns, fact)
            if worker.state is not before:
                seen.add((before, worker.state))
    assert seen == {(a, b) for a, followers in TRANSITIONS.items() for b in followers}


def test_a_worker_with_too_much_memory_is_replaced_and_that_is_no_crash():
    worker = running(crash_loop=CrashLoopSpec(deaths=1))
    worker.handle(0, Up())
    actions = worker.handle(11 * SECOND_NS, MemoryHigh())
    assert shape(actions) == [Signal("SIGTERM"), Signal("SIGCONT")]
    assert worker.handle(11 * SECOND_NS, MemoryHigh()) == ()
    actions = worker.handle(12 * SECOND_NS, Exited(0, None, MIDDLE))
    assert shape(actions) == ["exit", "restart", Spawn()]
    assert worker.last_exit.cause == "memory"
    assert (worker.restarts, worker.crash_loop) == (0, False)


def test_a_worker_that_had_too_much_memory_at_once_waits_like_any_other():
    worker = running()
    worker.handle(0, MemoryHigh())
    assert shape(worker.handle(1, Exited(0, None, MIDDLE))) == ["exit", "backoff"]


def test_what_does_not_end_for_its_memory_is_killed_and_still_no_crash():
    worker = running(crash_loop=CrashLoopSpec(deaths=1))
    worker.handle(0, MemoryHigh())
    assert Signal("SIGKILL") in worker.handle(5 * SECOND_NS, Tick())
    worker.handle(5 * SECOND_NS, Exited(None, "SIGKILL", MIDDLE))
    assert not worker.crash_loop
    assert worker.wanted


def test_a_stop_wins_over_a_replacement_for_memory():
    worker = running()
    worker.handle(0, MemoryHigh())
    worker.handle(1, StopWanted())
    worker.handle(2, Exited(0, None, MIDDLE))
    assert worker.state is State.STOPPED


def test_the_last_deaths_are_kept_with_their_causes():
    worker = running(stable_after_ns=0)
    for second in range(6):
        worker.handle(second * SECOND_NS, Exited(second, None, MIDDLE))
        worker.handle(worker.deadline_ns, Tick())
        worker.handle(second * SECOND_NS, Ready())
    assert [death.code for death in worker.exits] == [2, 3, 4, 5]
    assert worker.exits[-1].at_ns == 5 * SECOND_NS
    assert worker.exits[-1].cause == "crash"


@pytest.mark.parametrize(
    ("signal", "before", "cause"),
    [
        ("SIGKILL", (), Cause.OOM),
        (None, (), Cause.OOM),
        ("SIGKILL", (KillWanted("SIGKILL"),), Cause.OPERATOR),
        ("SIGKILL", (Hung(6 * SECOND_NS),), Cause.HANG),
    ],
)
def test_memory_that_ran_out_is_the_cause_unless_we_killed_it(signal, before, cause):
    worker = running()
    for fact in before:
        worker.handle(0, fact)
    worker.handle(1, Exited(None, signal, MIDDLE, oom=True))
    assert worker.last_exit.cause == cause
