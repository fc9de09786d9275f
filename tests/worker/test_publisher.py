"""The publisher on a real loop with real subscribers: journal, sends, hold, slow ones."""

import asyncio
import contextlib
import functools
import json
import os
import socket
import time

import pytest
import uvloop
import zmq

from shm.journal import Journal
from shm.journal_reader import JournalReader
from shm.layout import Counter, Word
from shm.stats import StatsWriter
from worker import outlet
from worker.announcement import Announcement, EventKind, Origin
from worker.envelope import STRETCH_SHIFT, STRETCHES, Flag, Kind, decode
from worker.publisher import Publisher
from worker.spec import ConnectionSpec, PublishSpec

RING = 1 << 16
ORIGIN = Origin(fleet="t", connection="x", incarnation=1, pid=1)


class Bench:
    """One incarnation of a publisher, and the subscribers of a test."""

    def __init__(self, folder, incarnation=1, **keys):
        self.folder = folder
        keys = {"journal": RING, "ring": 1024} | keys
        self.spec = ConnectionSpec(name="x", url="ws://h.test/", publish=PublishSpec(**keys))
        self.stats = StatsWriter.create(folder, "x", incarnation=incarnation, ring_slots=1024)
        size = self.spec.publish.journal
        take_over = Journal.take_over
        self.journal = size and take_over(folder, "x", size=size, incarnation=incarnation)
        self.path = folder / "x.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        if not self.path.exists():
            self.listener.bind(str(self.path))
            self.listener.listen(64)
        self.publisher = None

    def open(self, listener=None):
        descriptor = os.dup((listener or self.listener).fileno())
        endpoint = f"ipc://{self.path}"
        self.publisher = Publisher(
            self.spec, self.stats, descriptor, endpoint, ORIGIN, self.journal or None
        )
        return self.publisher

    def say(self, first, last, payload=b"m", key=None):
        """Publish, counting as a connection does."""
        for number in range(first, last + 1):
            self.stats.counters[Counter.MESSAGES] += 1
            self.stats.counters[Counter.BYTES] += len(payload)
            said = payload + b"%d" % number, number % 2 == 0, number, number
            if key is None:
                self.publisher.data(*said)
            else:
                self.publisher.data_of_key(key, *said)
        self.publisher.flush()

    def look(self):
        """What the timer does; return what it would announce."""
        return self.publisher.look()

    def count(self, counter):
        return self.stats.counters[counter]

    @property
    def sending(self):
        return self.publisher._outlet.send_data is not None

    def close(self):
        """End as a worker does; a second call does nothing."""
        if self.stats is None:
            return
        if self.publisher is not None:
            self.publisher.close()
        if self.journal:
            self.journal.close()
        self.stats.close()
        self.stats = None

    def forget(self):
        self.close()
        self.listener.close()


class Sub:
    """A SUB socket; reads only when asked."""

    def __init__(self, path, *prefixes, hwm=100_000):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, hwm)
        self.socket.setsockopt(zmq.RECONNECT_IVL, 1)
        for prefix in prefixes:
            self.socket.subscribe(prefix)
        self.socket.connect(f"ipc://{path}")
        self.frames = []

    def read(self, kind=Kind.DATA):
        with contextlib.suppress(zmq.Again):
            while True:
                self.frames.append(decode(self.socket.recv(zmq.DONTWAIT)))
        return [frame for frame in self.frames if frame.kind == kind]

    def close(self):
        self.context.destroy(0)


async def until(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.001)
    return result


def kept(bench, first=1, last=1 << 40):
    with JournalReader.open(bench.folder, "x") as reader:
        return [(seq, decode(frame)) for seq, frame in reader.frames(first, last)]


def on_loop(test):
    """Run a test on a loop of its own, with a maker of publishers that end with it."""

    async def within(folder):
        with contextlib.ExitStack() as stack:

            def make(*arguments, **keys):
                made = Bench(folder, *arguments, **keys)
                stack.callback(made.forget)
                return made

            def sub(*prefixes, **keys):
                made = Sub(folder / "x.sock", *prefixes, **keys)
                stack.callback(made.close)
                return made

            make.sub = sub
            await test(make)

    def run(tmp_path):
        uvloop.run(within(tmp_path))

    run.__name__ = test.__name__
    return run


@on_loop
async def test_what_is_published_is_kept_to_the_byte(bench):
    here = bench()
    here.open()
    sub = bench.sub(b"data.x\0", b"data.x.")
    await until(lambda: here.sending)
    here.say(1, 300, os.urandom(200))
    here.say(301, 303, b"", key="BTC")
    here.say(304, 304, b"long" * 2000)
    heard = await until(lambda: len(sub.read()) == 304 and sub.read())
    assert [frame.seq for frame in heard] == list(range(1, 305))
    assert [frame.topic_seq for frame in heard] == [*range(1, 301), 1, 2, 3, 301]
    assert [frame.flags for frame in heard[:3]] == [Flag.FIRST_OF_EPOCH, Flag.TEXT, 0]
    assert {frame.topic for frame in heard} == {"data.x", "data.x.BTC"}
    found = kept(here)
    assert found == [(frame.seq, frame) for frame in heard][-len(found) :]
    assert found[-1][0] == here.stats.words[Word.SEQ] == 304


@on_loop
async def test_another_session_is_another_stretch_of_each_topic_and_of_state_frames(bench):
    here = bench()
    publisher = here.open()
    sub = bench.sub(b"")
    await until(lambda: here.sending)

    def say():
        here.say(1, 1)
        here.say(1, 1, key="BTC")
        publisher.liveness()

    publisher.state("dialing", 3)
    publisher.state("up", 3)
    say()
    publisher.state("waiting", 3)
    publisher.state("dialing", 4)
    say()  # what another leg still brings
    publisher.state("dialing", 5)
    publisher.state("subscribing", 5)
    publisher.state("up", 5)
    say()
    publisher.state("stale", 5)
    publisher.state("up", 5)
    say()
    heard = await until(lambda: len(sub.read()) == 8 and sub.read())
    assert [frame.flags >> STRETCH_SHIFT for frame in heard] == [0] * 4 + [1] * 4
    assert heard[0].flags == Flag.FIRST_OF_EPOCH
    assert {frame.flags & ~Flag.FIRST_OF_EPOCH for frame in heard[:4]} == {0}
    states = await until(lambda: len(s := sub.read(Kind.STATE)) >= 8 and s)
    told = {
        (json.loads(frame.payload)["session"], frame.flags)
        for frame in states + sub.read(Kind.LIVENESS)
        if frame.payload
    }
    after = Flag.TEXT | 1 << STRETCH_SHIFT
    assert {flags for session, flags in told if session in (3, 4)} == {Flag.TEXT}
    assert (5, after) in told
    for number in range(6, 6 + STRETCHES):
        publisher.state("up", number)
    here.say(1, 1)
    heard = await until(lambda: len(sub.read()) == 9 and sub.read())
    assert heard[8].flags >> STRETCH_SHIFT == 1, "it counts modulo 16"


@on_loop
async def test_what_a_read_brought_goes_at_its_end_before_an_event_and_before_the_end(bench):
    here = bench()
    here.open()
    sub = bench.sub(b"")
    await until(lambda: here.sending)
    here.publisher.data(b"1", True, 1, 1)
    await asyncio.sleep(0.1)
    assert not sub.read(), "the read goes on"
    here.publisher.event(Announcement(kind=EventKind.PONG), 2, 2)
    await until(lambda: sub.read(Kind.EVENT))
    assert [f.kind for f in sub.frames if f.kind in (Kind.DATA, Kind.EVENT)] == [
        Kind.DATA, Kind.EVENT,
    ]  # fmt: skip
    here.publisher.data(b"2", True, 3, 3)
    here.close()
    heard = await until(lambda: len(sub.read()) == 2 and sub.read())
    assert [frame.payload for frame in heard] == [b"1", b"2"]


@on_loop
async def test_a_frame_too_long_is_sent_and_counted(bench):
    here = bench()
    here.open()
    sub = bench.sub(b"data.x\0")
    await until(lambda: here.sending)
    here.say(1, 1, bytes(RING // 4))
    here.say(2, 2)
    await until(lambda: len(sub.read()) == 2)
    assert [seq for seq, _ in kept(here)] == [2]
    assert here.count(Counter.FRAMES_SKIPPED) == here.journal.frames_skipped == 1


@on_loop
async def test_nothing_is_sent_while_nobody_has_subscribed_to_data(bench):
    here = bench()
    sent = []
    here.open()
    here_out = here.publisher._outlet
    real, here_out._raw_send = here_out._raw_send, lambda frame, flags: sent.append(frame)
    here.say(1, 10)
    assert (sent, len(kept(here)), here.stats.words[Word.SEQ]) == ([], 10, 10)
    other = bench.sub(b"state.x\0", b"event.x.", b"data.x2", b"data.xy\0")
    await until(lambda: here.stats.words[Word.SUBSCRIBERS] == 4)
    here.say(11, 20)
    assert [decode(frame).kind for frame in sent if decode(frame).kind == Kind.DATA] == []
    here_out._raw_send = real
    for prefixes in ((b"",), (b"data.x\0",), (b"data.x.B",), (b"da",)):
        wanting = bench.sub(*prefixes)
        await until(lambda: here.sending)
        wanting.close()
        await until(lambda: not here.sending)
    assert here.stats.words[Word.SUBSCRIBERS] == 4
    assert other.read() == []


@on_loop
async def test_who_subscribed_to_one_prefix_twice_is_forgotten_when_gone(bench):
    """libzmq tells each subscription, but the end of both once."""
    one = bench()
    publisher = one.open()
    for _ in range(3):
        sub = bench.sub("data.x\0", "state.x\0")
        await until(lambda: one.stats.words[Word.SUBSCRIBERS] == 2)
        sub.socket.subscribe("data.x\0")
        await until(lambda: one.sending and one.stats.words[Word.SUBSCRIBERS] == 3)
        sub.close()
        for _ in range(outlet.FAREWELLS):
            await asyncio.sleep(0.02)
            publisher.look()
        assert (one.sending, one.stats.words[Word.SUBSCRIBERS]) == (False, 0)


@on_loop
async def test_the_first_subscriber_is_seen_at_once_and_told_the_head(bench):
    here = bench()
    here.open()
    waits = []
    for turn in range(10):
        sub = bench.sub(b"data.x\0", b"state.x\0")
        began = time.monotonic()
        while not here.sending:
            here.say(turn * 100_000 + 1, turn * 100_000 + 1)
            await asyncio.sleep(0.0002)
        head = here.stats.words[Word.SEQ]
        waits.append(time.monotonic() - began)
        here.say(1, 1)
        (first,) = await until(sub.read)
        assert first.seq == head + 1
        lives = await until(functools.partial(sub.read, Kind.LIVENESS))
        assert lives[0].seq == json.loads(lives[0].payload)["seq"] == head
        assert sub.frames.index(lives[0]) < sub.frames.index(first)
        assert sub.read(Kind.HELLO)[0].seq <= head
        sub.close()
        await until(lambda: not here.sending)
    assert sorted(waits)[5] < 0.1, "no timer of ours calls drain in this test"


@on_loop
async def test_without_a_journal_all_else_is_the_same(bench):
    here = bench(journal=0)
    here.open()
    sub = bench.sub(b"data.x\0", b"state.x\0")
    await until(lambda: here.sending)
    here.say(1, 5)
    await until(lambda: len(sub.read()) == 5)
    assert json.loads(sub.read(Kind.LIVENESS)[0].payload)["journal"] is None
    assert not (here.folder / "x.journal").exists()


@on_loop
async def test_numbers_go_on_from_whichever_says_more(bench):
    here = bench()
    here.open()
    here.say(1, 7)
    here.stats.words[Word.SEQ] = 3  # killed within a read
    here.journal.tell(3)
    here.close()
    successor = bench(2)
    successor.open(here.listener)
    assert successor.stats.words[Word.SEQ] == 7
    successor.close()
    third = bench(3)
    third.stats.words[Word.SEQ] = 9  # too long for the journal, or that was lost
    third.open(here.listener)
    third.say(8, 8)
    assert [(seq, frame.epoch) for seq, frame in kept(here)][-2:] == [(7, 1), (10, 3)]


@on_loop
async def test_a_kill_after_a_frame_too_long_for_the_journal_gives_no_number_out_twice(bench):
    here = bench()
    here.open()
    here.say(1, 3)
    for payload in (b"4", bytes(RING), b"6", b"7"):  # killed within their read
        here.publisher.data(payload, False, 1, 1)
    here.close()
    successor = bench(2)
    successor.open(here.listener)
    assert successor.stats.words[Word.SEQ] == 7
    assert [seq for seq, _ in kept(here)] == [1, 2, 3, 4, 6, 7]


@on_loop
async def test_a_journal_goes_on_after_a_read_that_ended_with_a_frame_too_long_for_it(bench):
    here = bench()
    here.open()
    here.say(1, 3)
    here.say(4, 4, bytes(RING))
    here.close()
    successor = bench(2)
    successor.open(here.listener)
    successor.say(5, 5)
    assert [seq for seq, _ in kept(here)] == [1, 2, 3, 5]


@on_loop
async def test_without_a_journal_the_head_is_shown_before_each_send(bench):
    here = bench(journal=0)
    here.open()
    for number in range(1, 4):
        here.publisher.data(b"m", True, 1, 1)
        assert here.stats.words[Word.SEQ] == number


@on_loop
async def test_former_subscribers_are_waited_for_and_miss_nothing(bench):
    here = bench()
    here.open()
    sub = bench.sub(b"data.x\0", b"state.x\0")
    await until(lambda: here.sending)
    here.say(1, 3)
    await until(lambda: len(sub.read()) == 3)
    here.close()
    successor = bench(2)
    assert successor.stats.former_subscriptions == 2
    with pytest.MonkeyPatch.context() as patch:  # the machine may be busy
        patch.setattr(outlet, "HOLD_S", 10)
        successor.open(here.listener)
    assert successor.stats.words[Word.SUBSCRIBERS] == 2, "kept, should this one be killed, too"
    successor.publisher.state("dialing", 1)
    successor.say(4, 6)
    assert len(kept(successor)) == 6, "kept while held back"
    reading = asyncio.ensure_future(until(lambda: len(sub.read()) >= 6))
    await until(lambda: not successor.publisher._outlet.holding)
    successor.say(7, 9)
    await reading
    await until(lambda: len(sub.read()) == 9)
    assert [frame.seq for frame in sub.read()] == list(range(1, 10))
    after = [frame for frame in sub.frames if frame.epoch == 2]
    assert [frame.kind for frame in after[:3]] == [Kind.HELLO, Kind.STATE, Kind.DATA]
    assert after[0].seq == 3, "the head before what was held back"


@on_loop
async def test_the_wait_is_short_and_its_frames_bounded(bench):
    here = bench()
    here.open()
    sub = bench.sub(b"data.x\0")
    await until(lambda: here.sending)
    sub.close()  # as if killed together with the worker: it never comes back
    here.stats.words[Word.SUBSCRIBERS] = 1
    here.close()
    successor = bench(2)
    successor.open(here.listener)
    assert successor.publisher._outlet.holding
    await until(lambda: not successor.publisher._outlet.holding, 2)
    assert not successor.sending
    assert successor.stats.words[Word.SUBSCRIBERS] == 0
    successor.stats.words[Word.SUBSCRIBERS] = 1
    successor.close()
    third = bench(3)
    third.open(here.listener)
    third.say(1, 17, bytes(outlet.HELD_BYTES_MAX // 16))
    assert not third.publisher._outlet.holding, "too much to hold"


@on_loop
async def test_a_subscriber_that_stands_still_is_named_and_harms_nobody(bench):
    here = bench(sndhwm=1000)
    here.open()
    healthy = bench.sub(b"data.x\0")
    stalled = bench.sub(b"data.x\0", hwm=100)
    await until(lambda: here.stats.words[Word.SUBSCRIBERS] == 2)
    said, told = 0, []
    while not told:
        here.say(said + 1, said + 20, bytes(1000))
        said += 20
        await asyncio.sleep(0.002)  # or the I/O thread is the slow one
        healthy.read()
        told += here.look()
        assert said < 100_000
    for _ in range(50):
        here.say(said + 1, said + 20, bytes(1000))
        said += 20
        await asyncio.sleep(0.005)
        healthy.read()
        told += here.look()
    assert len(told) == 1, "once an episode, while it goes on"
    stalled_has = len(stalled.read())
    for _ in range(100):
        stalled_has = len(stalled.read())
        await asyncio.sleep(0.001)
    await until(lambda: told.extend(here.look()) or len(told) > 1)
    begin, end = told
    assert {begin.kind, end.kind} == {EventKind.SLOW}
    assert begin.detail == {"first": begin.detail["first"], "pids": [os.getpid()]}
    assert end.detail["first"] == begin.detail["first"] == stalled_has + 1
    assert end.detail["last"] >= said
    assert 0 < end.detail["duration_s"] < 20
    assert end.detail["times"] == here.count(Counter.QUEUES_FULL) >= 1
    await until(lambda: len(healthy.read()) == said)
    here.say(said + 1, said + 1)
    await until(lambda: stalled.read()[-1].seq == said + 1)


@on_loop
async def test_a_subscriber_that_leaves_too_many_bytes_unread_is_cut_and_may_come_back(bench):
    here = bench(sndbytes=8 << 20)
    here.open()
    sub = bench.sub(b"data.x\0", hwm=1)
    await until(lambda: here.sending)
    before = resident()
    told = []
    for number in range(1, 201):
        here.say(number, number, bytes(1 << 20))
        await asyncio.sleep(0.002)
        told += here.look()
    assert resident() - before < 60 << 20, "200 MiB were sent"
    assert here.count(Counter.SUBSCRIBERS_CUT) == 1
    assert here.count(Counter.QUEUES_FULL) == 0
    (cut,) = told
    assert (cut.kind, cut.detail["pids"]) == (EventKind.SLOW, [os.getpid()])
    assert 8 < cut.detail["last"] < 60
    await until(lambda: not here.sending)
    await until(sub.read)
    await until(lambda: sub.read() and here.sending)
    here.say(1, 1, b"more")
    await until(lambda: sub.read()[-1].payload == b"more1")


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


@on_loop
async def test_absurd_subscriptions_are_counted_and_change_nothing(bench):
    here = bench()
    here.open()
    context = zmq.Context()
    peer = context.socket(zmq.XSUB)
    peer.connect(f"ipc://{here.path}")
    for frame in (b"\x01" + b"d" * 1000, b"\x02what", b"", b"\x00never"):
        peer.send(frame)
    peer.send(b"\x01state.x\0")
    await until(lambda: here.stats.words[Word.SUBSCRIBERS] == 1)
    assert here.count(Counter.SUBSCRIPTIONS_REFUSED) >= 3
    assert not here.sending
    context.destroy(0)


@on_loop
async def test_many_prefixes_at_once_are_all_read(bench):
    here = bench()
    here.open()
    sub = bench.sub(*(b"data.x.%d\0" % n for n in range(900)))
    await until(lambda: here.stats.words[Word.SUBSCRIBERS] == 900)
    sub.close()
    await until(lambda: here.stats.words[Word.SUBSCRIBERS] == 0 and not here.sending)
