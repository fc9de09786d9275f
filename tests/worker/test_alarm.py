import asyncio
import time

from worker.alarm import Alarm

MS = 1_000_000


def rings(*moments_ms, cancel=False):
    """Return how often an alarm rings that is set to these moments, the last one counts."""

    async def act():
        rung = []
        alarm = Alarm(lambda: rung.append(time.monotonic_ns()))
        began_ns = time.monotonic_ns()
        for moment_ms in moments_ms:
            alarm.set(None if moment_ms is None else began_ns + moment_ms * MS)
        if cancel:
            alarm.cancel()
        await asyncio.sleep(0.2)
        return [(rung_ns - began_ns) / MS for rung_ns in rung]

    return asyncio.run(act())


def test_it_rings_once_for_the_moment_it_was_last_set_to():
    (rung_ms,) = rings(5, 100)
    assert rung_ms >= 98
    assert len(rings(100, 5)) == 1
    assert len(rings(5, 5)) == 1


def test_a_moment_that_has_passed_rings_at_once():
    assert len(rings(-1000)) == 1


def test_without_a_moment_or_cancelled_it_does_not_ring():
    assert rings(5, None) == []
    assert rings(5, cancel=True) == []


def test_once_rung_it_can_be_set_to_the_same_moment_again():
    async def act():
        rung = []
        alarm = Alarm(lambda: rung.append(1))
        for count in (1, 2):
            alarm.set(1)
            await asyncio.sleep(0.05)
            assert len(rung) == count

    asyncio.run(act())
