"""With a server: tests/conformance/test_judgement.py and test_transport.py."""

import asyncio

import pytest

from worker.manual_pings import ManualPings


def run(coroutine):
    async def bounded():
        async with asyncio.timeout(10):
            return await coroutine

    return asyncio.run(bounded())


def test_a_pong_answers_the_ping_of_its_body_and_no_other():
    async def act():
        pings = ManualPings()
        bodies = [pings.body(None), pings.body(b"mine")]
        first, mine = (pings.sent(body, 100) for body in bodies)
        assert pings.take(b"other", 110) is None
        assert pings.take(b"mine", 130) == 100
        assert pings.take(b"mine", 140) is None, "a second answer is nobody's"
        assert await mine == 30
        assert not first.done()
        assert pings.take(bodies[0], 150) == 100
        assert await first == 50

    run(act())


def test_bodies_of_our_own_differ_and_one_that_waits_is_refused():
    async def act():
        pings = ManualPings()
        assert pings.body(None) != pings.body(None)
        waiting = pings.sent(pings.body(b"twice"), 0)
        with pytest.raises(ValueError, match="twice"):
            pings.body(b"twice")
        waiting.cancel()
        await asyncio.sleep(0)
        assert pings.body(b"twice") == b"twice", "nobody waits for the first any more"

    run(act())


def test_a_lost_session_is_told_to_all_who_wait():
    async def act():
        pings = ManualPings()
        waiting = [pings.sent(pings.body(None), 0) for _ in range(2)]
        pings.lost()
        for answered in waiting:
            with pytest.raises(ConnectionResetError):
                await answered
        assert pings.body(b"x") == b"x"

    run(act())
