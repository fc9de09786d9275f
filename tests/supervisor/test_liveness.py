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


def test_regular_scans_of_live_workers_show_no_stall():
    assert scans(HostGuard(), hung=0, count=100) == [None] * 100


def test_a_late_scan_of_our_own_excuses_everybody_once():
    guard = HostGuard()
    scans(guard, hung=0)
    late_ns = SCAN_NS + LATE_NS
    (stall,) = scans(guard, hung=10, start=late_ns)
    assert stall.late_ns == LATE_NS
    assert guard.excused_until_ns == late_ns + PATIENCE_NS
    (again,) = scans(guard, hung=10, start=2 * late_ns)
    assert again is None
    assert guard.excused_until_ns == late_ns + PATIENCE_NS


def test_more_than_half_of_the_fleet_silent_is_the_host():
    guard = HostGuard()
    scans(guard, hung=0)
    (stall,) = scans(guard, hung=6, start=SCAN_NS)
    assert stall.late_ns == 0


def test_two_hung_workers_of_two_are_not_a_host():
    guard = HostGuard()
    scans(guard, hung=0, judged=2)
    assert scans(guard, hung=2, judged=2, start=SCAN_NS) == [None]
