"""One sample into ring and histogram, in memory of our own."""

import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm.layout import (
    BUCKETS,
    LOW_HALF,
    SAMPLE,
    SAMPLE_BYTES,
    VALUE_MAX,
    SampleKind,
    Section,
    Word,
    bucket_index,
)
from shm.samples import make_recorder

RING = Section("samples", 4096, 8, SAMPLE_BYTES)


class Memory:
    """A ring and histograms of their own."""

    def __init__(self, seq=0):
        self.memory = mmap.mmap(-1, RING.end)
        self.words = memoryview(bytearray(512)).cast("q")
        self.buckets = memoryview(bytearray(8 * BUCKETS * len(SampleKind))).cast("Q")
        self.record = make_recorder(self.memory, self.words, self.buckets, RING, seq)

    def sample(self, seq):
        start = RING.offset + seq % RING.count * SAMPLE_BYTES
        return SAMPLE.unpack(self.memory[start : start + SAMPLE_BYTES])


@given(st.sampled_from(SampleKind), st.integers(-(2**63), 2**63 - 1))
def test_a_value_counts_in_the_bucket_of_its_kind(kind, value_ns):
    memory = Memory()
    memory.record(kind, 1, value_ns)
    found = [index for index, count in enumerate(memory.buckets) if count]
    assert found == [(kind - 1) * BUCKETS + bucket_index(value_ns)]
    assert memory.sample(1)[2] == value_ns


@pytest.mark.parametrize("value_ns", [-1, 0, 127, 128, 255, 256, 511, VALUE_MAX, VALUE_MAX + 1])
def test_edges_count_as_the_layout_says(value_ns):
    memory = Memory()
    memory.record(SampleKind.CONNECT, 1, value_ns)
    at = (SampleKind.CONNECT - 1) * BUCKETS + bucket_index(value_ns)
    assert memory.buckets[at] == 1


def test_records_follow_each_other_around_the_ring():
    memory = Memory(seq=5)
    for number in range(6, 30):
        memory.record(SampleKind.RTT, number, 10 * number)
        assert memory.sample(number)[:3] == (number, number, 10 * number)
        assert memory.words[Word.SAMPLE_INTENT] == memory.words[Word.SAMPLE_PUBLISH] == number


def test_every_field_stands_where_the_layout_says():
    memory = Memory()
    memory.record(SampleKind.RTT, 10, 20, exchange_ns=30, aux=40, size=50)
    assert memory.sample(1) == (1, 10, 20, 0, SampleKind.RTT, 0, 30, 40, 50, 0, 0, 1)
    memory.record(SampleKind.LOOP_LAG, 11, 21)
    assert memory.sample(2) == (2, 11, 21, 0, SampleKind.LOOP_LAG, 0, 0, 0, 0, 0, 0, 2)


def test_a_number_beyond_32_bits_shows_its_low_half():
    seq = 7 << 32 | LOW_HALF
    memory = Memory(seq=seq - 1)
    memory.record(SampleKind.RTT, 1, 2)
    memory.record(SampleKind.RTT, 3, 4, aux=5)
    assert memory.sample(seq)[0] == seq
    assert memory.sample(seq)[-1] == LOW_HALF
    assert memory.sample(seq + 1)[-1] == 0
