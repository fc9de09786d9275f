import asyncio

from worker.client_dispatcher import OTHERS_MAX, Dispatcher
from worker.client_events import Closed, Connecting, Message


def run(coroutine):
    async def bounded():
        async with asyncio.timeout(10):
            return await coroutine

    return asyncio.run(bounded())


def test_events_are_handled_one_after_the_other_in_their_order():
    async def act():
        dispatcher, told = Dispatcher(100, 1_000_000), []

        async def slow(event):
            await asyncio.sleep(0.02 / event.attempt)
            told.append(event.attempt)

        dispatcher.add("connecting", slow)
        for attempt in range(1, 6):
            dispatcher.emit(Connecting(attempt=attempt))
        assert told == []
        await dispatcher.drained(5)
        assert told == [1, 2, 3, 4, 5]

    run(act())


def test_what_nobody_hears_costs_no_task_and_draining_is_at_once():
    async def act():
        dispatcher = Dispatcher(1, 1_000_000)
        assert not dispatcher.hears("message")
        for number in range(10):
            dispatcher.emit(Message(data=number))
        assert len(asyncio.all_tasks()) == 1
        assert dispatcher.dropped == 0
        await dispatcher.drained(5)

    run(act())


def test_messages_beyond_the_bytes_drop_the_oldest_but_never_the_latest():
    async def act():
        dispatcher, told = Dispatcher(100, 10), []
        dispatcher.add("message", lambda event: told.append(event.data))
        for number, size in enumerate((4, 6, 1, 50)):
            dispatcher.emit(Message(data=number), size)
        await dispatcher.drained(5)
        dispatcher.emit(Message(data=4), 10)
        await dispatcher.drained(5)
        assert told == [3, 4]
        assert dispatcher.dropped == 3

    run(act())


def test_a_full_queue_drops_the_oldest_message_and_nothing_else():
    async def act():
        dispatcher, told = Dispatcher(2, 1_000_000), []
        dispatcher.add("message", lambda event: told.append(event.data))
        dispatcher.add("connecting", lambda event: told.append("connecting"))
        dispatcher.emit(Connecting(attempt=1))
        for number in range(5):
            dispatcher.emit(Message(data=number))
            dispatcher.emit(Connecting(attempt=1))
        await dispatcher.drained(5)
        assert [item for item in told if item != "connecting"] == [3, 4]
        assert told.count("connecting") == 6
        assert dispatcher.dropped == 3

    run(act())


def test_other_events_are_bounded_too_and_the_last_of_them_is_told():
    async def act():
        dispatcher, told, released = Dispatcher(2, 1_000_000), [], asyncio.Event()
        dispatcher.add("connecting", lambda event: released.wait())
        dispatcher.add("connecting", lambda event: told.append(event.attempt))
        dispatcher.add("closed", lambda event: told.append("closed"))
        dispatcher.add("message", lambda event: told.append(event.data))
        dispatcher.emit(Connecting(attempt=0))
        await asyncio.sleep(0)  # it is being handled, and waits
        dispatcher.emit(Message(data="kept"))
        for attempt in range(1, OTHERS_MAX + 8):
            dispatcher.emit(Connecting(attempt=attempt))
        dispatcher.emit(Closed(code=1000, reason=""))
        released.set()
        await dispatcher.drained(5)
        assert told == [0, "kept", *range(9, OTHERS_MAX + 8), "closed"]
        assert (dispatcher.dropped, dispatcher.others_dropped) == (0, 8)

    run(act())


def test_what_handlers_emit_is_handled_too_and_draining_waits_for_it():
    async def act():
        dispatcher, told = Dispatcher(10, 1_000_000), []

        async def again(event):
            told.append(event.attempt)
            await dispatcher.drained(5)  # by a handler: no wait for itself
            if event.attempt < 3:
                dispatcher.emit(Connecting(attempt=event.attempt + 1))

        dispatcher.add("connecting", again)
        dispatcher.emit(Connecting(attempt=1))
        await dispatcher.drained(5)
        assert told == [1, 2, 3]

    run(act())


def test_draining_gives_up_on_a_handler_that_stays():
    async def act():
        dispatcher, released = Dispatcher(10, 1_000_000), asyncio.Event()
        dispatcher.add("connecting", lambda event: released.wait())
        dispatcher.emit(Connecting(attempt=1))
        async with asyncio.timeout(1):
            await dispatcher.drained(0.02)
        released.set()
        await dispatcher.drained(5)

    run(act())
