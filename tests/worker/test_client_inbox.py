import asyncio

import pytest

from worker.client_inbox import TURN_OF, Inbox


def run(coroutine):
    async def bounded():
        async with asyncio.timeout(10):
            return await coroutine

    return asyncio.run(bounded())


def test_messages_are_taken_in_order_and_what_waits_is_taken_after_the_end():
    async def act():
        inbox = Inbox(10, 1_000_000)
        assert not inbox.has_consumer
        inbox.put(b"a", True)
        inbox.put(b"b", False)
        inbox.close()
        assert [await inbox.take() for _ in range(4)] == [(b"a", True), (b"b", False), None, None]
        assert inbox.has_consumer

    run(act())


def test_a_full_inbox_loses_its_oldest_and_counts_them():
    async def act():
        inbox = Inbox(3, 1_000_000)
        for number in range(5):
            inbox.put(b"%d" % number, True)
        assert [(await inbox.take())[0] for _ in range(3)] == [b"2", b"3", b"4"]
        assert inbox.dropped == 2

    run(act())


def test_an_inbox_of_full_bytes_loses_its_oldest_but_never_the_latest():
    async def act():
        inbox = Inbox(100, 10)
        for payload in (b"a" * 4, b"b" * 6, b"c", b"d" * 50):
            inbox.put(payload, False)
        assert await inbox.take() == (b"d" * 50, False)
        assert inbox.dropped == 3
        inbox.put(b"e" * 10, True)  # what was taken counts no more
        inbox.put(b"f", True)
        assert [(await inbox.take())[0] for _ in range(1)] == [b"f"]
        assert inbox.dropped == 4

    run(act())


@pytest.mark.parametrize("end", [True, False])
def test_all_who_wait_are_woken(end):
    async def act():
        inbox = Inbox(10, 1_000_000)
        waiting = [asyncio.create_task(inbox.take()) for _ in range(3)]
        await asyncio.sleep(0)
        if end:
            inbox.close()
        else:
            for _ in waiting:
                inbox.put(b"x", True)
        assert await asyncio.gather(*waiting) == [None if end else (b"x", True)] * 3

    run(act())


def test_a_consumer_leaves_the_loop_its_turns():
    async def act():
        inbox, turns = Inbox(10_000, 1_000_000), []
        for _ in range(3 * TURN_OF):
            inbox.put(b"x", True)

        async def count():
            while True:
                turns.append(1)
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        for _ in range(3 * TURN_OF):
            await inbox.take()
        counting.cancel()
        assert 2 <= len(turns) <= 4

    run(act())
