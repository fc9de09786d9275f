from worker.announcement import EventKind
from worker.slow import CALM_NS, FIRST_LOOK_NS, LOOK_NS, PIDS_MAX, SlowWatch

SECOND_NS = 1_000_000_000


def test_an_episode_is_told_at_its_begin_and_at_its_end():
    stuck = {1: 7}
    watch = SlowWatch(lambda: dict(stuck))
    assert watch.look(5, 0) is None
    watch.full(10, 0)
    assert watch.look(11, FIRST_LOOK_NS - 1) is None
    begin = watch.look(12, FIRST_LOOK_NS)
    assert (begin.kind, begin.detail) == (EventKind.SLOW, {"first": 10, "pids": [7]})
    watch.full(20, FIRST_LOOK_NS + 1)
    assert watch.look(30, FIRST_LOOK_NS + LOOK_NS - 1) is None
    stuck[2] = 8
    assert watch.look(40, 5 * SECOND_NS - LOOK_NS) is None
    assert watch.look(41, 5 * SECOND_NS) is None
    stuck.clear()
    assert watch.look(45, 5 * SECOND_NS + LOOK_NS) is None
    assert watch.look(50, 5 * SECOND_NS + 2 * LOOK_NS) is None
    assert watch.look(55, 5 * SECOND_NS + 3 * LOOK_NS) is None
    assert watch.look(60, 5 * SECOND_NS + CALM_NS - 1) is None
    end = watch.look(70, 5 * SECOND_NS + CALM_NS + LOOK_NS)
    assert end.detail == {"first": 10, "last": 50, "times": 2, "duration_s": 5.0, "pids": [7, 8]}
    assert not watch.active
    assert watch.look(80, 60 * SECOND_NS) is None
    watch.full(90, 60 * SECOND_NS)
    assert watch.look(91, 61 * SECOND_NS).detail == {"first": 90, "pids": []}


def test_who_is_busy_for_a_moment_is_not_called_slow():
    looks = [(1, 2), (2, 3), (2, 4), (2, 3), *([()] * 100)]
    seen = [{link: link for link in look} for look in looks]
    watch = SlowWatch(lambda: seen.pop(0))
    watch.full(1, 0)
    told = [watch.look(n, n * LOOK_NS) for n in range(1, 30)]
    begin, end = (said for said in told if said is not None)
    assert (begin.detail["pids"], end.detail["pids"]) == ([2], [2])


def test_a_queue_that_is_full_again_and_again_is_one_episode():
    watch, told = SlowWatch(dict), []
    for n in range(1, 20):
        watch.full(n, n * SECOND_NS // 2)
        told.append(watch.look(n, n * SECOND_NS // 2 + LOOK_NS))
    assert [said is not None for said in told] == [True] + [False] * 18


def test_no_more_processes_are_told_than_an_event_holds():
    watch = SlowWatch(lambda: {n: n for n in range(100)})
    watch.full(1, 0)
    assert watch.look(1, SECOND_NS).detail["pids"] == list(range(1, PIDS_MAX + 1))
