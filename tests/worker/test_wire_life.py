import asyncio
import contextlib
import gc
import socket
import ssl
import struct
import threading

import pytest
import trustme
from raw_exchange import (
    CLOSE,
    TEXT,
    RawExchange,
    open_descriptors,
)
from wires import dial, life, run, spec_of, wait_until

from worker.spec import ReconnectSpec


@pytest.mark.parametrize("status", [401, 404, 429, 503])
def test_a_refused_handshake_tells_its_status(engine, status):
    async def script(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 4\r\n\r\nbusy" % status)
        await peer.gone()

    ear, _ = life(script, engine=engine, handshake=False)
    assert (ear.ending.cause, ear.ending.status) == ("handshake_refused", status)
    assert not ear.opened.is_set()


@pytest.mark.parametrize(
    "begun",
    [
        b"Content-Length: 400\r\n\r\nha",
        b"\r\nuntil the end of a stream that does not end",
        b"Transfer-Encoding: chunked\r\n\r\nff\r\nhalf a chunk",
        b"Transfer-Encoding: gzip\r\n\r\n",
        b"X: y\r\n\r\n" + b"z" * 200_000,
    ],
)
def test_when_to_come_again_is_read_from_a_refusal_whose_body_never_ends(engine, begun):
    async def script(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        for byte in b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 17\r\n":
            peer.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        peer.writer.write(begun)
        await peer.gone()

    ear, _ = life(script, engine=engine, handshake=False)
    assert (ear.ending.cause, ear.ending.status) == ("handshake_refused", 429)
    assert ear.ending.retry_after_ns == 17 * 10**9


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"\0" * 20_000,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: wrong\r\n\r\n",
    ],
)
def test_garbage_for_a_handshake_is_a_failed_handshake(engine, answer):
    async def script(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.write(answer)
        await peer.gone()

    ear, _ = life(script, engine=engine, handshake=False)
    assert ear.ending.cause == "handshake_failed"
    assert not ear.opened.is_set()


@pytest.mark.parametrize("stage", ["accepted", "request read", "half answered", "open"])
def test_a_reset_at_any_stage_ends_the_wire(engine, stage):
    async def script(peer):
        if stage == "open":
            await peer.handshake()
        elif stage != "accepted":
            await peer.reader.readuntil(b"\r\n\r\n")
        if stage == "half answered":
            peer.writer.write(b"HTTP/1.1 101 Swit")
        await peer.writer.drain()
        await asyncio.sleep(0.02)
        peer.reset()

    ear, _ = life(script, engine=engine, handshake=False)
    assert ear.ending.cause in {"reset", "handshake_failed"}
    assert ear.opened.is_set() == (stage == "open")


def test_a_close_is_answered_within_the_round_trip(engine):
    codes = []

    async def script(peer):
        codes.append((await peer.until(CLOSE))[:2])
        peer.send(CLOSE, codes[0])
        await peer.gone()

    async def act():
        async with RawExchange(script) as exchange:
            keys = {"reconnect": ReconnectSpec(close_timeout_ns=10**11)}
            wire, ear = dial(spec_of(exchange.url, **keys, engine=engine))
            await ear.opened.wait()
            wire.close(1000, "", wait=True)
            assert not wire.send_text(b"too late")
            await ear.closed.wait()
            assert ear.ending.code == 1000

    run(act())
    assert codes == [(1000).to_bytes(2, "big")]


@pytest.mark.parametrize("wait", [True, False])
def test_a_peer_that_reads_nothing_loses_the_socket_within_the_close_timeout(engine, wait):
    async def act():
        release = asyncio.Event()

        async def script(peer):
            peer.writer.transport.pause_reading()
            await release.wait()
            peer.writer.transport.resume_reading()
            await peer.gone()

        async with RawExchange(script) as exchange:
            wire, ear = dial(spec_of(exchange.url, engine=engine))
            await ear.opened.wait()
            while wire.send_text(b"x" * 60_000) and wire._transport.get_write_buffer_size() < 10**7:
                pass
            wire.close(1001, "dead", wait=wait)
            await ear.closed.wait()
            release.set()
            await wait_until(lambda: exchange.open == 0)

    run(act())


def test_a_dial_can_be_aborted_at_every_stage(engine):
    async def act():
        async def mute(peer):
            await peer.gone()

        async with RawExchange(mute, handshake=False) as exchange:
            for turns in range(12):
                wire, ear = dial(spec_of(exchange.url, engine=engine))
                for _ in range(turns):
                    await asyncio.sleep(0)
                wire.abort()
                await ear.closed.wait()
            await wait_until(lambda: exchange.open == 0)

    run(act())


def test_a_refused_port_and_an_unknown_name_have_their_causes(engine):
    async def act(url):
        _wire, ear = dial(spec_of(url, engine=engine))
        await ear.closed.wait()
        return ear.ending.cause

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert run(act(f"ws://127.0.0.1:{port}/")) == "connect_refused"
    assert run(act("ws://no-such-host.invalid/")) == "dns"
    assert run(act(f"ws://{'a' * 70}.invalid/")) == "dns"


def test_tls_is_verified_against_the_operators_own_authority(engine, tmp_path):
    async def act(authority, certificate):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)

        async def script(peer):
            peer.send(TEXT, b"secret")
            peer.send(CLOSE)
            await peer.gone()

        async with RawExchange(script, context=context) as exchange:
            path = tmp_path / "ca.pem"
            authority.cert_pem.write_to_path(str(path))
            _wire, ear = dial(spec_of(exchange.url, tls_ca=str(path), engine=engine))
            await ear.closed.wait()
            return ear

    ours, other = trustme.CA(), trustme.CA()
    ear = run(act(ours, ours.issue_cert("localhost")))
    assert ear.of("message") == [(True, b"secret")]
    for certificate in (other.issue_cert("localhost"), ours.issue_cert("elsewhere.test")):
        ear = run(act(ours, certificate))
        assert ear.ending.cause == "tls"
        assert ear.of("opened") == []


def test_the_upgrade_request_carries_headers_and_subprotocols_and_no_proxy(engine, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ws_proxy", "http://127.0.0.1:1")

    async def script(peer):
        peer.send(CLOSE)
        await peer.gone()

    ear, exchange = life(
        script,
        engine=engine,
        headers=(("X-Key", "k"), ("User-Agent", "mine")),
        subprotocols=("v1",),
    )
    request = exchange.peers[0].request
    assert ear.opened.is_set()
    assert b"X-Key: k" in request
    assert b"Sec-WebSocket-Protocol: v1" in request
    assert request.count(b"User-Agent") >= 1
    assert b"permessage-deflate" not in request


def test_a_thousand_lives_leave_no_descriptor_and_no_task(engine):
    async def act():
        async def script(peer):
            peer.send(TEXT, b"x")
            peer.send(CLOSE)
            await peer.gone()

        async with RawExchange(script) as exchange:
            for number in range(1000):
                _wire, ear = dial(spec_of(exchange.url, engine=engine))
                await ear.closed.wait()
                exchange.peers.clear()
                if number == 20:
                    await wait_until(lambda: exchange.open == 0)
                    descriptors, tasks = open_descriptors(), len(asyncio.all_tasks())
            await wait_until(lambda: exchange.open == 0)
            await asyncio.sleep(0.1)
            assert open_descriptors() <= descriptors
            assert len(asyncio.all_tasks()) <= tasks

    run(act())


def test_a_socket_that_is_lost_at_its_birth_is_closed_once(engine):
    """Closed again when it is collected, it would take the descriptor of another with it."""

    def reset_all(listener):
        with contextlib.suppress(OSError):
            while True:
                listener.accept()[0].close()

    async def act(url):
        for _ in range(100):
            ears = [dial(spec_of(url, engine=engine))[1] for _ in range(10)]
            for ear in ears:
                await ear.closed.wait()
        await asyncio.sleep(0.05)

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=reset_all, args=(listener,))
        thread.start()
        try:
            run(act(f"ws://127.0.0.1:{listener.getsockname()[1]}/"))
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
    gc.collect()  # a ResourceWarning is an error here
