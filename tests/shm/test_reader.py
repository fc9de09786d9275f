"""What a reader returns was written, whole, in order; what it lost is counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shm
from shm.journal import Journal
from shm.journal_layout import SIZE_MIN
from shm.layout import SampleKind
from shm.reader import Reader
from shm.stats import StatsWriter


@pytest.fixture
def writer(tmp_path):
    made = StatsWriter.create(tmp_path, "a", incarnation=1, ring_slots=1024)
    yield made
    made.close()


def test_samples_come_oldest_first_with_all_their_fields(tmp_path, writer):
    writer.record(SampleKind.RTT, 10, 20, exchange_ns=30, aux=40, size=50)
    writer.record(SampleKind.CONNECT, 11, 21)
    with Reader(tmp_path, "a") as reader:
        samples = reader.samples()
        assert samples.dtype.names == (
            *("seq", "time_ns", "value_ns", "kind", "flags", "exchange_ns", "aux", "size"),
        )
        assert samples[0].tolist() == (1, 10, 20, SampleKind.RTT, 0, 30, 40, 50)
        assert samples[1].tolist()[:4] == (2, 11, 21, SampleKind.CONNECT)


def test_a_lapped_reader_goes_on_at_the_oldest_and_counts_what_it_missed(tmp_path, writer):
    with Reader(tmp_path, "a") as reader:
        for number in range(10):
            writer.record(1, number, 1)
        assert len(reader.samples()) == 10
        for number in range(2000):
            writer.record(1, number, 1)
        samples = reader.samples()
        assert samples["seq"][0] == 2010 - 1024 + 1
        assert samples["seq"][-1] == 2010
        assert reader.lapped == 2010 - 1024 - 10
        assert reader.bad_records == 0


def test_a_reader_goes_over_to_the_next_incarnation(tmp_path, writer):
    with Reader(tmp_path, "a") as reader:
        assert not reader.refresh()
        writer.close()
        successor = StatsWriter.create(tmp_path, "a", incarnation=2, ring_slots=1024)
        assert reader.refresh()
        assert reader.epoch == 2
        successor.close()


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=200), st.floats(0, 100))
@settings(max_examples=60, deadline=None)
def test_a_percentile_is_the_upper_edge_of_the_true_quantiles_bucket(
    tmp_path_factory, values, quantile
):
    folder = tmp_path_factory.mktemp("p")
    writer = StatsWriter.create(folder, "a", incarnation=1, ring_slots=1024)
    for value in values:
        writer.record(SampleKind.RTT, 0, value)
    rank = max(1, int(np.ceil(len(values) * quantile / 100)))
    true = sorted(values)[rank - 1]
    with Reader(folder, "a") as reader:
        told = reader.percentiles("rtt", (quantile,))[quantile]
    writer.close()
    assert true <= told <= true + true // 128 + 1


def test_percentiles_since_a_snapshot_look_only_at_what_came_after(tmp_path, writer):
    with Reader(tmp_path, "a") as reader:
        assert reader.percentiles("rtt", (50,)) == {}
        writer.record(SampleKind.RTT, 0, 100)
        before = reader.histogram("rtt")
        assert reader.percentiles("rtt", (50,), since=before) == {}
        writer.record(SampleKind.RTT, 0, 200)
        assert reader.percentiles("rtt", (50,), since=before) == {50: 200}
        assert reader.percentiles("rtt", (0, 100)) == {0: 100, 100: 200}
        with pytest.raises(KeyError):
            reader.percentiles("nonsense", (50,))


@pytest.mark.parametrize("value", [-5, 1 << 43])
def test_impossible_durations_are_counted_at_the_ends(tmp_path, writer, value):
    writer.record(SampleKind.RTT, 0, value)
    with Reader(tmp_path, "a") as reader:
        assert int(reader.histogram("rtt").sum()) == 1


def test_attach_finds_a_fleet_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("FEEDWARDEN_SHM", str(tmp_path))
    folder = tmp_path / "feedwarden-1" / "majors"
    folder.mkdir(parents=True)
    StatsWriter.create(folder, "a", incarnation=3, ring_slots=1024).close()
    with shm.attach("majors", "a") as reader:
        assert reader.epoch == 3
        assert reader.counters()["messages"] == 0
    with pytest.raises(FileNotFoundError, match=r"no segment of connection 'b' in .*are: a$"):
        shm.attach("majors", "b")
    with pytest.raises(FileNotFoundError, match=r"no fleet 'minors' below .*are: majors$"):
        shm.attach("minors", "a")


def test_the_package_lists_what_it_gives():
    assert set(shm.__all__) <= set(dir(shm))
    assert all(getattr(shm, name) for name in shm.__all__)
    with pytest.raises(AttributeError, match="attacj"):
        _ = shm.attacj


@pytest.mark.parametrize("count", [0, 1, 3, 2000])  # of 512 slots, before and after many laps
def test_the_index_of_a_journal_has_each_frame_once_in_order(tmp_path, writer, count):
    journal = Journal.take_over(tmp_path, "a", size=SIZE_MIN, incarnation=1)
    for seq in range(1, count + 1):
        journal.append(seq, b"x" * (90 + seq % 7))
    with Reader(tmp_path, "a") as reader:
        index = reader.journal_index()
        assert index.dtype.names == ("seq", "position", "size")
        first = int(index["seq"][0]) if count else 1
        assert index["seq"].tolist() == list(range(first, count + 1))
        assert first == 1 or first > count - 700
        assert (index["size"] == 90 + index["seq"] % 7).all()
        assert (np.diff(index["position"]) >= 96).all()
        for seq, _position, size in index[-3:].tolist():
            assert [(found, len(frame)) for found, frame in reader.frames(seq, seq)] == [
                (seq, size)
            ]
    journal.close()
