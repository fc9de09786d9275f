"""What subscribers of a running fleet get, over deaths, stalls and late joins."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
from exchange_thread import ExchangeThread
from fleet import running_fleet, wait_for
from listening import listening, split
from raw_exchange import TEXT

from shm.journal_reader import JournalReader
from shm.layout import Counter
from shm.view import StatsView

pytestmark = pytest.mark.system

BATCH, PAUSE_S = 30, 0.01  # 3,000 a second
TOML = """
[[connection]]
name = "a"
url = "{url}"
heartbeat = false
restart = {{ stable_after = 0, crash_loop = false }}
publish = {{ journal = {{ size = "{journal}" }}, sndhwm = {sndhwm} }}
"""
STALLED = """
import sys, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.setsockopt(zmq.RCVHWM, 100)
socket.setsockopt(zmq.RECONNECT_IVL, 1)
socket.subscribe("data.a\\0")
socket.connect(sys.argv[1])
frame = socket.recv()
print("first", flush=True)
input()
seqs = []
while socket.poll(500):
    frame = socket.recv()
    end = frame.index(b"\\0")
    seqs.append(int.from_bytes(frame[end + 9 : end + 17], "little"))
    if sum(b != a + 1 for a, b in zip(seqs, seqs[1:])) and seqs[-1] > int(sys.argv[2]):
        break
gaps = [(a + 1, b - 1) for a, b in zip(seqs, seqs[1:]) if b != a + 1]
print(gaps, flush=True)
"""


@contextlib.contextmanager
def streaming(folder, *, batch=BATCH, body=b"", journal="32MiB", sndhwm=10_000):
    """A fleet of one connection whose exchange numbers its messages, anew in each session."""

    async def stream(peer):
        session, number = exchange.accepted, 0
        while True:
            for _ in range(batch):
                number += 1
                peer.send(TEXT, b"%d %d " % (session, number) + body)
            await peer.writer.drain()
            await asyncio.sleep(PAUSE_S)

    with ExchangeThread(stream) as exchange:
        toml = TOML.format(url=exchange.url, journal=journal, sndhwm=sndhwm)
        with running_fleet(folder, toml) as fleet:
            yield fleet


def seqs_of(messages):
    return [header[4] for _topic, header, _payload in messages]


def journal_of(fleet):
    return JournalReader.open(next(fleet.shm_base.rglob("a.journal")).parent, "a")


def repaired(fleet, messages):
    """By number: what came over ZeroMQ, and from the journal what is missing up to its head."""
    found = {header[4]: payload for _topic, header, payload in messages}
    with journal_of(fleet) as journal:
        for seq, frame in journal.frames(min(found), journal.last_seq):
            payload = split(frame)[2]
            assert found.setdefault(seq, payload) == payload
        assert journal.bad_records == 0
    return found


def assert_prefix_per_session(found):
    """Numbers without a gap, and in each session what the exchange sent first, without a gap."""
    assert sorted(found) == list(range(min(found), max(found) + 1))
    sessions = {}
    for seq in sorted(found):
        session, number = map(int, found[seq].split()[:2])
        sessions.setdefault(session, []).append(number)
    for session, numbers in list(sessions.items())[1:]:  # of the first we saw the end only
        assert numbers == list(range(1, len(numbers) + 1)), session
    return sessions


def test_twenty_killed_workers_cost_no_message(tmp_path):
    with streaming(tmp_path) as fleet:
        rows = fleet.wait_up()
        with listening([rows["a"]["endpoint"]], (b"data.a\0",)) as listener:
            wait_for(listener.data, "data")
            for epoch in range(1, 21):
                wait_for(lambda epoch=epoch: last_epoch(listener) == epoch, f"epoch {epoch}")
                time.sleep(0.07 + epoch % 7 * 0.013)
                os.kill(pid_of(fleet), signal.SIGKILL)
            wait_for(lambda: last_epoch(listener) == 21, "the last")
            data = listener.data()
        seqs = seqs_of(data)
        assert seqs == sorted(set(seqs)), "in order, none twice"
        found = repaired(fleet, data)
        sessions = assert_prefix_per_session(found)
        assert len(sessions) >= 20
        assert fleet.rows()["a"]["restarts"] == 20
        lost = max(seqs) - min(seqs) + 1 - len(seqs)
        print(f"{len(found)} messages, {lost} repaired from the journal")


def last_epoch(listener):
    frames = listener.frames
    return split(frames[-1][1])[1][3] if frames else 0


def pid_of(fleet):
    with StatsView.open(next(fleet.shm_base.rglob("a.stats")).parent, "a") as view:
        return view.pid


def test_a_worker_killed_while_it_stands_still_has_lost_nothing_it_had_read(tmp_path):
    with streaming(tmp_path) as fleet:
        rows = fleet.wait_up()
        with listening([rows["a"]["endpoint"]], (b"data.a\0",)) as listener:
            wait_for(lambda: len(listener.data()) > 100, "data")
            pid = pid_of(fleet)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.3)
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: last_epoch(listener) == 2, "its successor")
            data = listener.data()
        assert_prefix_per_session(repaired(fleet, data))


def test_nobody_subscribed_costs_no_message_and_a_late_one_repairs_from_the_journal(tmp_path):
    with streaming(tmp_path) as fleet:
        rows = fleet.wait_up()
        # Far more than 1,000: the hello has the head of the latest stamp, 100 ms ago or more.
        wait_for(lambda: fleet.rows()["a"]["messages"] > 5000, "messages")
        with listening([rows["a"]["endpoint"]], (b"data.a\0", b"state.a\0")) as late:
            wait_for(lambda: len(late.data()) > 100, "data")
            frames = [split(frame) for _, frame in late.frames]
        kinds = [header[1] for _topic, header, _payload in frames]
        assert kinds[0] == 3, "hello first"
        first = kinds.index(1)
        told = [header[4] for _topic, header, _payload in frames[:first]]
        assert frames[first][1][4] == told[-1] + 1, "all that comes after the head told last"
        assert told[0] > 1000
        found = repaired(fleet, [frames[first]])
        with journal_of(fleet) as journal:
            before = journal.frames(1, told[-1])
        assert [seq for seq, _ in before] == list(range(1, told[-1] + 1))
        assert min(found) == told[-1] + 1


def test_a_stalled_subscriber_is_named_repairs_all_and_harms_nobody(tmp_path):
    with streaming(tmp_path, body=b"x" * 1000, sndhwm=1000) as fleet:
        rows = fleet.wait_up()
        endpoint = rows["a"]["endpoint"]
        events = f"ipc://{fleet.runtime_dir}/events.sock"
        with listening([events, endpoint], (b"data.a\0", b"event.a.slow\0")) as healthy:
            wait_for(healthy.data, "data")
            command = [sys.executable, "-c", STALLED, endpoint, "0"]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as stalled:
                assert stalled.stdout.readline() == "first\n"
                wait_for(lambda: slow(healthy), "a slow event")
                time.sleep(1)
                gaps, _ = stalled.communicate("\n", timeout=30)
                gap, *_others = eval(gaps)
                pid = stalled.pid
            wait_for(lambda: len(slow(healthy)) >= 4, "its end, on both endpoints")
            told = slow(healthy)
            data = healthy.data()
        begin, end = (
            next(e for e in told if ("last" in e["detail"]) is over) for over in (False, True)
        )
        assert begin["detail"] == {"first": gap[0], "pids": [pid]}
        assert end["detail"]["first"] == gap[0]
        assert end["detail"]["last"] >= gap[1]
        assert end["detail"]["pids"] == [pid]
        seqs = seqs_of(data)
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), "the healthy one lost nothing"
        with journal_of(fleet) as journal:
            lost = journal.frames(*gap)
            assert [seq for seq, _ in lost] == list(range(gap[0], gap[1] + 1))
        counters = fleet.rows()["a"]["counters"]
        assert counters["queues_full"] == end["detail"]["times"]


def slow(listener):
    return [event for event in listener.events("a") if event["kind"] == "slow"]


def test_a_fleet_killed_as_a_whole_goes_on_in_its_journal(tmp_path):
    with streaming(tmp_path) as fleet:
        fleet.wait_up()
        wait_for(lambda: fleet.rows()["a"]["messages"] > 500, "messages")
        fleet.kill_everything()
        with journal_of(fleet) as journal:
            head = journal.last_seq
            kept = journal.frames(1, head)
        fleet.start()
        fleet.wait_up()
        row = wait_for(lambda: (row := fleet.rows()["a"])["messages"] > head + 500 and row, "more")
        with journal_of(fleet) as journal:
            assert row["journal"] == {"path": str(journal.path), "size": 32 << 20}
            assert journal.frames(1, head) == kept
            seqs = [seq for seq, _ in journal.frames(1, head + 500)]
        assert seqs == list(range(1, head + 501))
        assert fleet.stop() == 0
        assert fleet.shm_files() == []


def test_a_frame_over_a_quarter_of_the_journal_is_sent_and_counted(tmp_path):
    with streaming(tmp_path, batch=1, body=bytes(20_000), journal="64KiB") as fleet:
        rows = fleet.wait_up()
        with listening([rows["a"]["endpoint"]], (b"data.a\0",)) as listener:
            wait_for(lambda: len(listener.data()) > 20, "data")
        row = fleet.rows()["a"]
        assert row["counters"]["frames_skipped"] >= row["messages"] - 1 > 20
        assert Counter.FRAMES_SKIPPED.name.lower() in row["counters"]
        with journal_of(fleet) as journal:
            assert journal.frames(1, 1 << 40) == []


def test_a_reader_without_zeromq_follows_over_a_restart(tmp_path):
    with streaming(tmp_path) as fleet:
        fleet.wait_up()
        with journal_of(fleet) as journal:
            follower, found = journal.follower(), []
            for _ in range(2):
                before = len(found)
                while len(found) < before + 1000:
                    found += follower.poll()
                os.kill(pid_of(fleet), signal.SIGKILL)
            end = time.monotonic() + 20
            while split(found[-1][1])[1][3] < 3 and time.monotonic() < end:
                found += follower.poll()
            assert {split(frame)[1][3] for _, frame in found} == {1, 2, 3}
            assert [seq for seq, _ in found] == list(range(found[0][0], found[-1][0] + 1))
            assert follower.lapped == journal.bad_records == 0
