"""A writer's segment over incarnations, and what the supervisor's view of it tells."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from shm.errors import SegmentForeign, SegmentLocked
from shm.layout import EVENT_BODY_MAX, EVENT_SLOTS, Counter, Word
from shm.reader import Reader
from shm.stats import StatsWriter, stats_path
from shm.view import StatsView

SLOTS = 1024


def create(directory, incarnation=1, slots=SLOTS, lock_timeout_ns=0):
    return StatsWriter.create(
        directory,
        "a",
        incarnation=incarnation,
        ring_slots=slots,
        lock_timeout_ns=lock_timeout_ns,
    )


def test_words_and_counters_are_seen_at_once(tmp_path):
    writer = create(tmp_path)
    with StatsView.open(tmp_path, "a") as view:
        assert view.words[Word.EPOCH] == 1
        writer.words[Word.SEQ] = 5
        writer.counters[Counter.MESSAGES] += 3
        assert view.words[Word.SEQ] == 5
        assert view.counters[Counter.MESSAGES] == 3
        assert view.locked()
        writer.close()
        assert not view.locked()


def test_the_next_incarnation_goes_on_where_the_last_stopped(tmp_path):
    writer = create(tmp_path)
    writer.words[Word.SEQ] = 500
    writer.words[Word.LIVENESS_NS] = 1
    writer.counters[Counter.PINGS] = 7
    for number in range(5):
        writer.record(1, number, 100)
    writer.event(3, 10, 20, b"{}")
    writer.close()
    successor = create(tmp_path, 2)
    successor.record(1, 9, 100)
    assert successor.event(4, 11, 21, b"[]") == 2
    with Reader(tmp_path, "a") as reader:
        assert (reader.epoch, reader.seq) == (2, 500)
        assert reader.counters()["pings"] == 7
        assert list(reader.samples()["seq"]) == [1, 2, 3, 4, 5, 6]
        assert int(reader.histogram("rtt").sum()) == 1, "of this incarnation"
        assert reader.view.words[Word.LIVENESS_NS] == 0, "no stamp is inherited"
        records, lapped = reader.view.events(0, 10)
        assert [(r.seq, r.kind, r.body) for r in records] == [(1, 3, b"{}"), (2, 4, b"[]")]
        assert lapped == 0
    successor.close()


def test_a_ring_of_another_size_starts_empty_and_its_numbers_go_on(tmp_path):
    writer = create(tmp_path)
    for number in range(10):
        writer.record(1, number, 1)
    writer.close()
    successor = create(tmp_path, 2, slots=2048)
    successor.record(1, 0, 1)
    with Reader(tmp_path, "a") as reader:
        assert list(reader.samples()["seq"]) == [11]
        assert reader.bad_records == 0
    successor.close()


def test_one_name_has_one_writer(tmp_path):
    writer = create(tmp_path)
    with pytest.raises(SegmentLocked):
        create(tmp_path, 2)
    writer.close()
    create(tmp_path, 2).close()


def test_an_incarnation_never_goes_back(tmp_path):
    create(tmp_path, 5).close()
    with pytest.raises(ValueError, match="incarnation 5 after 5"):
        create(tmp_path, 5)
    assert sorted(os.listdir(tmp_path)) == ["a.stats"], "no temporary file is left"


def test_a_foreign_file_is_not_replaced(tmp_path):
    stats_path(tmp_path, "a").write_text("precious")
    with pytest.raises(SegmentForeign):
        create(tmp_path)
    assert stats_path(tmp_path, "a").read_text() == "precious"


def test_a_predecessor_of_another_layout_is_replaced(tmp_path):
    create(tmp_path).close()
    path = stats_path(tmp_path, "a")
    spoiled = bytearray(path.read_bytes())
    spoiled[16] ^= 0xFF  # the layout hash
    path.write_bytes(spoiled)
    create(tmp_path, 2).close()
    with Reader(tmp_path, "a") as reader:
        assert (reader.epoch, reader.seq) == (2, 0)


def test_events_beyond_the_ring_are_reported_as_lapped(tmp_path):
    writer = create(tmp_path)
    for number in range(EVENT_SLOTS + 10):
        writer.event(1, number, number, b"")
    with StatsView.open(tmp_path, "a") as view:
        records, lapped = view.events(0, 1000)
        assert lapped == 10
        assert [record.seq for record in records] == list(range(11, EVENT_SLOTS + 11))
        records, lapped = view.events(EVENT_SLOTS, 4)
        assert (len(records), lapped) == (4, 0)
        assert view.events(EVENT_SLOTS + 10, 4) == ([], 0)
    writer.close()


def test_an_event_body_that_does_not_fit_is_refused(tmp_path):
    writer = create(tmp_path)
    writer.event(1, 0, 0, b"x" * EVENT_BODY_MAX)
    with pytest.raises(ValueError, match="at most"):
        writer.event(1, 0, 0, b"x" * (EVENT_BODY_MAX + 1))
    with StatsView.open(tmp_path, "a") as view:
        assert view.events(0, 9)[0][0].body == b"x" * EVENT_BODY_MAX
    writer.close()


WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from shm.stats import StatsWriter
    writer = StatsWriter.create(Path(sys.argv[1]), "a", incarnation=int(sys.argv[2]),
                                ring_slots=1024)
    print("up", flush=True)
    number = 0
    while True:
        number += 1
        writer.record(1, number, number % 1000)
        if number % 64 == 0:
            writer.event(1, number, number, b"body %d" % number)
    """
)


def test_a_writer_killed_at_any_moment_leaves_nothing_half_believed(tmp_path):
    last = 0
    for incarnation in range(1, 13):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(incarnation)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout.readline() == b"up\n"
            with Reader(tmp_path, "a") as reader:
                # What was carried over is not yet its own.
                while len(seen := reader.samples()) < 100 or seen["seq"][-1] <= last + 37:
                    pass
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        with Reader(tmp_path, "a") as reader:
            samples = reader.samples()
            assert reader.bad_records == 0
            assert reader.epoch == incarnation
            assert samples["seq"][-1] > last
            last = int(samples["seq"][-1])
            assert (samples["seq"][1:] - samples["seq"][:-1] == 1).all()
            for record in reader.view.events(max(0, last // 64 - 50), 100)[0]:
                assert record.body == b"body %d" % record.monotonic_ns
    assert sorted(os.listdir(tmp_path)) == ["a.stats"]
