"""R5 to R7: loss noticed anywhere, senders released, messages whole; and how they are taken."""

import asyncio
import os
import statistics
import time
import zlib

import pytest
from library import (
    TEXT,
    Answering,
    Diary,
    client,
    exchange_of,
    fast,
    foreign,
    refused_url,
    run,
    until,
)
from raw_exchange import BINARY, CONT, PING, PONG

from worker import ConnectionClosed, ConnectionFailed, NotConnected, WebSocket, connect

MIB = 1024 * 1024


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("doing", ["idle", "recv", "ping", "send", "handler"])
def test_r5_an_abrupt_end_is_noticed_within_100_ms_whatever_the_client_does(doing, how):
    ended_ns = []

    async def serve(peer):
        await asyncio.sleep(0.05)
        ended_ns.append(time.monotonic_ns())
        peer.reset() if how == "rst" else peer.writer.close()
        await asyncio.sleep(0.01)

    async def busy(ws):
        try:
            if doing == "recv":
                await ws.recv()
            elif doing == "ping":
                await ws.ping(timeout=20)
            elif doing == "send":
                while True:
                    await ws.send(b"x" * 65536)
        except (NotConnected, ConnectionClosed):
            pass

    async def act():
        async with exchange_of(serve) as exchange:
            waits_ms, released_ms = [], []
            for _ in range(5):
                ws = client(exchange.url, reconnect=False)
                if doing == "handler":
                    ws.add_handler("connected", lambda event: asyncio.sleep(0.08))
                diary = Diary(ws, "disconnected")
                await ws.connect()
                doer = asyncio.create_task(busy(ws))
                down = await diary.until("disconnected")
                waits_ms.append((down.monotonic_ns - ended_ns[-1]) / 1e6)
                await doer
                released_ms.append((time.monotonic_ns() - ended_ns[-1]) / 1e6)
                await ws.close()
            assert doing == "idle" or statistics.median(released_ms) <= 150
            assert statistics.median(waits_ms) <= 100

    run(act())


def test_r6_senders_to_a_stalled_peer_wait_and_are_released_by_its_loss():
    async def stalled(peer):
        await asyncio.sleep(60)

    async def act():
        heartbeat = fast(interval=0.3, timeout=0.2, first=0.2)
        async with exchange_of(stalled) as exchange:
            ws = client(exchange.url, heartbeat=heartbeat, reconnect=False)
            diary = Diary(ws, "timeout")
            await ws.connect()
            sent = []

            async def pour():
                while True:
                    await ws.send(b"x" * 262_144)
                    sent.append(time.monotonic_ns())

            pouring = [asyncio.create_task(pour()) for _ in range(40)]
            dead = await diary.until("timeout")
            assert dead.cause in ("ping_timeout", "busy")  # and not that too much was written
            assert sent
            assert max(sent) < dead.monotonic_ns  # all of them stood
            found = await asyncio.gather(*pouring, return_exceptions=True)
            assert (time.monotonic_ns() - dead.monotonic_ns) / 1e9 < 0.3 + 5
            assert {type(item) for item in found} == {NotConnected}
            await ws.close()

    run(act())


def test_r6_senders_that_waited_do_not_write_all_at_once_when_the_peer_reads_again():
    count, size = 300, 65_536  # together more than may wait to be sent

    async def act():
        reading, received = asyncio.Event(), []

        async def serve(ws):
            await reading.wait()
            async for message in ws:
                received.append(len(message.data))  # noqa: PERF401 - counted as they come

        async with foreign(serve, max_msg_size=0) as url, client(url, reconnect=False) as ws:
            sending = [asyncio.create_task(ws.send(b"x" * size)) for _ in range(count)]
            await asyncio.sleep(0.2)
            assert 0 < sum(task.done() for task in sending) < count
            reading.set()
            await asyncio.gather(*sending)
            await until(lambda: received == [size] * count)
            assert ws.is_connected

    run(act())


def test_a_long_message_to_a_slow_reader_is_no_flood_whatever_pings_leave_beside_it():
    async def script(peer):
        await begun.wait()
        while await peer.reader.read(1 << 20):
            pass

    begun = asyncio.Event()

    async def act():
        heartbeat = fast(interval=0.05, timeout=20, first=0.01)
        async with exchange_of(script) as exchange:
            ws = client(exchange.url, heartbeat=heartbeat, reconnect=False)
            await ws.connect()
            await ws.send(bytes(24 << 20))
            await until(lambda: ws.stats().pings >= 5)
            assert ws.is_connected
            begun.set()
            await ws.close()

    run(act())


def test_r7_text_binary_unicode_and_long_messages_come_back_as_sent():
    items = ["text", "", b"\0\xff", b"", "ü→🜁", "x" * 100_000, b"y" * 100_000, "é" * 50_000]

    async def act():
        async with foreign() as url, connect(url, heartbeat=None, close_timeout=0.3) as ws:
            for item in items:
                await ws.send(item)
                assert await ws.recv() == item
            for item in items:
                await ws.send(item)
            assert [await ws.recv() for _ in items] == items
            await ws.send({"op": "subscribe", "args": [1, None, "ä"]})
            assert await ws.recv() == '{"op":"subscribe","args":[1,null,"ä"]}'

    run(act())


def test_r7_a_close_of_the_server_raises_after_the_last_message():
    async def serve(ws):
        await ws.send_str("one")
        await ws.send_str("two")
        await ws.close(code=1001, message=b"maintenance")

    async def act():
        async with foreign(serve) as url, client(url, reconnect=False) as ws:
            await ws.wait_closed()
            assert [await ws.recv(), await ws.recv()] == ["one", "two"]
            for _ in range(2):
                with pytest.raises(ConnectionClosed, match=r"1001 \(maintenance\)"):
                    await ws.recv()
            with pytest.raises(NotConnected, match="closed"):
                await ws.send("x")
            with pytest.raises(NotConnected):
                await ws.ping()

    run(act())


def test_r7_a_refused_port_raises_with_its_cause():
    async def act():
        with pytest.raises(ConnectionFailed, match=r"ConnectionRefusedError") as failed:
            async with client(refused_url(), reconnect=False):
                pass
        assert (failed.value.cause, failed.value.status) == ("connect_refused", None)

    run(act())


@pytest.mark.parametrize("uri", ["http://a/", "ftp://a/", "a", "", "ws://", "//a/"])
def test_r7_what_is_no_websocket_uri_is_refused(uri):
    with pytest.raises(ValueError, match="uri"):
        WebSocket(uri)


def test_r7_fragments_make_one_message_with_control_frames_between():
    async def serve(peer):
        peer.send(TEXT, b"a\xc3", fin=False)
        peer.send(PING, b"between")
        peer.send(CONT, b"\xa4", fin=False)
        peer.send(CONT, b"b")
        peer.send(BINARY, b"\0", fin=False)
        peer.send(CONT, b"\1")
        assert await peer.until(PONG) == b"between"
        await peer.gone()

    async def act():
        async with exchange_of(serve) as exchange, client(exchange.url) as ws:
            assert [await ws.recv(), await ws.recv()] == ["aäb", b"\0\1"]
            await until(lambda: ws.stats().server_pings == 1)

    run(act())


def test_r7_16_mib_pass_and_one_byte_more_ends_the_session():
    async def serve(ws):
        size = int(await ws.receive_str())
        await ws.send_bytes(b"x" * size)
        await ws.receive()

    async def act():
        async with foreign(serve, compress=False) as url:
            for size, passes in ((16 * MIB, True), (16 * MIB + 1, False)):
                async with client(url, reconnect=False) as ws:
                    diary = Diary(ws, "disconnected")
                    await ws.send(str(size))
                    if passes:
                        assert len(await ws.recv()) == size
                        continue
                    with pytest.raises(ConnectionClosed):
                        await ws.recv()
                    assert (await diary.until("disconnected")).cause == "oversize"

    run(act())


def test_r7_a_deflate_bomb_inflates_no_further_than_the_limit():
    deflater = zlib.compressobj(9, wbits=-15)
    bomb = deflater.compress(b"\0" * 64 * MIB) + deflater.flush(zlib.Z_SYNC_FLUSH)

    async def serve(peer):
        peer.send(BINARY, bomb[:-4], rsv=4)
        await peer.gone()

    async def act():
        header = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"

        async def script(peer):
            await peer.handshake(header)
            await serve(peer)

        async with exchange_of(script, handshake=False) as exchange:
            ws = client(exchange.url, reconnect=False, compression=True, max_message=MIB)
            diary = Diary(ws, "disconnected", "message")
            await ws.run()
            assert (await diary.until("disconnected")).cause == "oversize"
            assert not diary.of("message")
            await ws.close()

    run(act())


def test_cancelling_recv_loses_nothing():
    async def act():
        numbers = [str(number) for number in range(200)]

        async def serve(ws):
            for number in numbers:
                await ws.send_str(number)
                await asyncio.sleep(0.001)
            await ws.receive()

        async with foreign(serve) as url, client(url) as ws:
            found, cancelled = [], 0
            while len(found) < len(numbers):
                try:
                    found.append(await asyncio.wait_for(ws.recv(), 0.0007))
                except TimeoutError:
                    cancelled += 1
            assert found == numbers
            assert cancelled > 0

    run(act())


def test_iteration_goes_on_over_reconnects_and_ends_when_the_connection_has_for_good():
    async def act():
        script = Answering(opening=["x"])
        async with exchange_of(script) as exchange:
            ws = client(exchange.url)
            found = []

            async def take():
                async for message in ws:
                    found.append(message)
                    if len(found) < 5:
                        exchange.peers[-1].writer.close()
                    else:
                        closing.set()

            closing = asyncio.Event()
            async with ws:
                taking = asyncio.create_task(take())
                await closing.wait()
                await ws.close()
                await taking
            assert found == ["x"] * 5
            assert exchange.accepted == 5

    run(act())


def test_a_consumer_that_works_through_a_long_buffer_leaves_the_loop_its_turns():
    async def act():
        script = Answering(opening=["x"] * 2000)
        async with (
            exchange_of(script) as exchange,
            client(exchange.url, heartbeat=fast(interval=0.2, first=0.2)) as ws,
        ):
            await until(lambda: ws.stats().messages_received == 2000)
            pings = ws.stats().pings
            for _ in range(2000):
                await ws.recv()
                time.sleep(0.0003)  # noqa: ASYNC251 - work
            assert ws.stats().pings > pings

    run(act())


def test_a_deserializer_makes_the_messages_and_one_that_raises_loses_none():
    async def act():
        async with (
            exchange_of(Answering(opening=["1", "x", "3"])) as exchange,
            client(exchange.url, deserializer=int) as ws,
        ):
            diary = Diary(ws, "error")
            assert [await ws.recv() for _ in range(3)] == [1, "x", 3]
            assert (await diary.until("error")).where == "deserializer"
            assert ws.stats().decode_errors == 1

    run(act())


def test_a_deserializer_that_raises_a_cancellation_cancels_nobody():
    def cancelled(_data):
        raise asyncio.CancelledError("of something else")

    async def act():
        async with (
            exchange_of(Answering(opening=["1", "2"])) as exchange,
            client(exchange.url, deserializer=cancelled) as ws,
        ):
            assert [await ws.recv() for _ in range(2)] == ["1", "2"]
            assert ws.stats().decode_errors == 2
            assert ws.stats().sessions == 1

    run(act())


def test_headers_and_subprotocols_go_into_the_handshake():
    async def act():
        async with exchange_of() as exchange:
            ws = client(exchange.url, headers={"X-Key": os.devnull}, subprotocols=["a", "b"])
            async with ws:
                (peer,) = exchange.peers
                assert b"X-Key: /dev/null\r\n" in peer.request
                assert b"Sec-WebSocket-Protocol: a, b\r\n" in peer.request

    run(act())
