"""A slot as bytes, and a life that goes on in another process."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from process_facts import FACTS

from supervisor.restart import WorkerLife
from supervisor.restart_facts import Exited, Remembered, Spawned, SpawnFailed
from supervisor.restart_state import NO_PROCESS, State
from supervisor.slot import DEATHS_KEPT, LIFE_BYTES_MAX, ExitRecord, Slot, pack, restore, unpack
from worker.spec import SECOND_NS, ConnectionSpec, CrashLoopSpec, RestartSpec

SPEC = ConnectionSpec(
    name="a",
    url="ws://h/",
    restart=RestartSpec(crash_loop=CrashLoopSpec(deaths=3, within_ns=90 * SECOND_NS)),
)


def slot_of(life):
    return Slot(
        name="a",
        exchange="",
        pid=0,
        incarnation=1,
        state=life.state,
        wanted=life.wanted,
        hung=False,
        crash_loop=life.crash_loop,
        restarts=life.restarts,
        next_attempt_ns=0,
        last_exit=ExitRecord(life.last_exit, 1) if life.last_exit is not None else None,
        life=life.remembered(),
    )


@given(
    st.lists(st.tuples(st.integers(0, 40 * SECOND_NS), FACTS, st.booleans()), max_size=60),
)
def test_a_life_goes_on_in_another_process_as_it_would_have(history):
    life, now_ns = WorkerLife(SPEC), 0
    for step_ns, fact, changes_hands in history:
        if isinstance(fact, Exited | SpawnFailed) and life.state in NO_PROCESS:
            continue
        now_ns += step_ns
        other = WorkerLife(SPEC)
        restore(other, unpack(pack(slot_of(life))))
        assert other.handle(now_ns, fact) == life.handle(now_ns, fact)
        assert slot_of(other) == slot_of(life)
        if changes_hands:
            life = other
        life.handle(now_ns, Spawned())


def test_the_longest_life_has_room():
    life = Remembered(
        stop_cause="x" * 24,
        kill_cause="x" * 24,
        operator_signal="SIGRTMAX-15",
        attempt=2**62,
        deaths=tuple(2**62 - n for n in range(DEATHS_KEPT + 5)),
        up_since_ns=2**62,
        longest_up_ns=2**62,
        deadline_ns=2**62,
    )
    seen = unpack(pack(replace(slot_of(WorkerLife(SPEC)), life=life)))
    assert seen.life == replace(life, deaths=life.deaths[-DEATHS_KEPT:]), "the oldest are left out"


def test_a_life_that_another_program_wrote_begins_anew_and_the_rest_is_kept():
    packed = bytearray(pack(replace(slot_of(WorkerLife(SPEC)), state=State.RUNNING, restarts=4)))
    packed[-LIFE_BYTES_MAX:] = b"\xc1" * LIFE_BYTES_MAX  # no MessagePack
    seen = unpack(bytes(packed))
    assert (seen.state, seen.restarts, seen.life) == (State.RUNNING, 4, Remembered())
