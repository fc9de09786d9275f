"""Judging stamps, with integers for time."""

from supervisor.liveness import LATE_NS, SCAN_NS, HostGuard, Liveness, Verdict
from worker.spec import SECOND_NS, HangSpec

PATIENCE_NS = 5 * SECOND_NS


def test_a_stamp_is_fresh_then_hung_then_dead():
    judge = Liveness(HangSpec())
    assert judge.judge(SECOND_NS, 0) is Verdict.FRESH
    assert judge.judge(SECOND_NS + 1, 0) is Verdict.HUNG
    assert judge.judge(5 * SECOND_NS, 0) is Verdict.HUNG
    assert judge.judge(5 * SECOND_NS + 1, 0) is Verdict.DEAD
    assert judge.judge(5 * SECOND_NS + 2, 5 * SECOND_NS) is Verdict.FRESH


def test_a_stamp_from_the_future_is_fresh():
    judge = Liveness(HangSpec())
    assert judge.judge(0, SECOND_NS) is Verdict.FRESH
    assert judge.age_ns == 0


def scans(guard, hung, judged=10, start=0, count=1):
    return [
        guard.scanned(start + number * SCAN_NS, hung=hung, judged=judged, patience_ns=PATIENCE_NS)
        for number in range(count)
    ]


def settled(guard, judged=10):
    """Scan past the patience of the first scan; return the time of the last one."""
    count = PATIENCE_NS // SCAN_NS + 1
    scans(guard, hung=0, judged=judged, count=count)
    return (count - 1) * SCAN_NS


def test_regular_scans_of_live_workers_show_no_stall():
    assert scans(HostGuard(), hung=0, count=100) == [None] * 100


def test_a_late_scan_of_our_own_excuses_everybody_once():
    guard = HostGuard()
    last_ns = settled(guard)
    late_ns = last_ns + SCAN_NS + LATE_NS
    (stall,) = scans(guard, hung=10, start=late_ns)
    assert stall.late_ns == LATE_NS
    assert guard.excused_until_ns == late_ns + PATIENCE_NS
    (again,) = scans(guard, hung=10, start=late_ns + SCAN_NS + LATE_NS)
    assert again is None
    assert guard.excused_until_ns == late_ns + PATIENCE_NS


def test_a_first_scan_excuses_everybody_and_is_no_stall():
    guard = HostGuard()
    assert scans(guard, hung=10, start=7) == [None]
    assert guard.excused_until_ns == 7 + PATIENCE_NS


def test_more_than_half_of_the_fleet_silent_is_the_host():
    guard = HostGuard()
    (stall,) = scans(guard, hung=6, start=settled(guard) + SCAN_NS)
    assert stall.late_ns == 0
    assert (stall.hung, stall.judged) == (6, 10)


def test_two_hung_workers_of_two_are_not_a_host():
    guard = HostGuard()
    last_ns = settled(guard, judged=2)
    assert scans(guard, hung=2, judged=2, start=last_ns + SCAN_NS) == [None]


def test_workers_that_hang_one_after_another_are_not_a_host():
    guard = HostGuard()
    last_ns = settled(guard)
    for hung in range(1, 6):
        last_ns += SCAN_NS
        assert scans(guard, hung=hung, start=last_ns) == [None]
