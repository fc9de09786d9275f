from worker.backlog import LOOKS, Backlog

BOUND = 8000
STEP = BOUND // LOOKS


def test_a_look_is_due_after_a_part_of_the_bound():
    backlog = Backlog(BOUND)
    assert not backlog.due(STEP - 1)
    assert backlog.due(STEP)
    backlog.looked(STEP, set())
    assert not backlog.due(2 * STEP - 1)
    assert backlog.due(2 * STEP)


def test_who_is_stuck_at_every_look_is_cut_once_the_bound_was_published():
    backlog = Backlog(BOUND)
    for look in range(1, LOOKS + 1):
        assert backlog.looked(look * STEP, {1}) == set()
    assert backlog.looked((LOOKS + 1) * STEP, {1, 2}) == {1}
    assert backlog.looked((LOOKS + 2) * STEP, {1, 2}) == set(), "again from the beginning"


def test_who_reads_in_between_is_not_cut():
    backlog = Backlog(BOUND)
    for look in range(1, 100):
        assert backlog.looked(look * STEP, {1} if look % LOOKS else set()) == set()
