"""Samples: one measurement into the ring and the histogram of its kind. The writer's side.

A record is announced by an intent word, stored in one slice and published by a second word
(docs/shm-layout.md). One function, made once, its variables in cells: attributes looked up and
fields packed that nobody fills would cost as much again (``tests/bench``, shared memory).
"""

import mmap
import struct
from typing import Protocol

from shm.layout import (
    BUCKETS,
    LOW_HALF,
    SAMPLE,
    SAMPLE_BYTES,
    SUB_BITS,
    VALUE_BITS_MAX,
    SampleKind,
    Section,
    Word,
)

INTENT, PUBLISH = int(Word.SAMPLE_INTENT), int(Word.SAMPLE_PUBLISH)
# SAMPLE with nothing but sequence number, time, value, kind and the number's low half.
PLAIN = struct.Struct("<Qqq4xH2x28xI")
assert PLAIN.size == SAMPLE.size


class Record(Protocol):
    """Adds one sample."""

    def __call__(
        self,
        kind: int,
        time_ns: int,
        value_ns: int,
        exchange_ns: int = 0,
        aux: int = 0,
        size: int = 0,
    ) -> None:
        """
        Add one sample to the ring and to the histogram of its kind.

        Args:
            kind: A ``SampleKind``; as a plain int it is found quicker.
            time_ns: When, CLOCK_MONOTONIC.
            value_ns: The duration; below 0 it counts as 0.
            exchange_ns: The exchange's own stamp, CLOCK_REALTIME of its host, 0 if none.
            aux: Free for the kind.
            size: Bytes it came with.

        """


def make_recorder(
    memory: mmap.mmap,
    words: "memoryview[int]",
    buckets: "memoryview[int]",
    ring: Section,
    seq: int,
) -> Record:
    """
    Return what records the samples behind number ``seq``.

    Args:
        memory: The segment.
        words: Its hot words.
        buckets: Of all its histograms, one after another.
        ring: Where its sample ring is; a power of two of slots.
        seq: The newest number in it.

    """
    first, end = ring.offset, ring.end
    at = first + seq % ring.count * SAMPLE_BYTES
    places, pack, pack_all, too_large = PLACES, PLAIN.pack, SAMPLE.pack, struct.error

    def record(
        kind: int,
        time_ns: int,
        value_ns: int,
        exchange_ns: int = 0,
        aux: int = 0,
        size: int = 0,
    ) -> None:
        nonlocal seq, at
        seq += 1
        at += SAMPLE_BYTES
        if at == end:
            at = first
        try:
            packed = pack(seq, time_ns, value_ns, kind, seq)
        except too_large:  # the number is, for its low half: after 2^32 samples
            packed = pack(seq, time_ns, value_ns, kind, seq & LOW_HALF)
        if exchange_ns or aux or size:
            low = seq & LOW_HALF
            packed = pack_all(seq, time_ns, value_ns, 0, kind, 0, exchange_ns, aux, size, 0, 0, low)
        words[INTENT] = seq
        memory[at : at + SAMPLE_BYTES] = packed
        words[PUBLISH] = seq
        if value_ns < 0:
            value_ns = 0
        shift, base = places[kind][value_ns.bit_length()]
        buckets[base + (value_ns >> shift)] += 1

    return record


def _places(kind: int) -> tuple[tuple[int, int], ...]:
    """
    Return how to find a value's bucket, by the number of its bits.

    A pair: so many low bits are dropped, and then so much is added (``shm.layout.bucket_index``).
    """
    histogram = (kind - 1) * BUCKETS
    exact = SUB_BITS + 1
    found = []
    for bits in range(64 + 1):
        shift = max(0, bits - exact)
        found.append((shift, histogram + (shift << SUB_BITS)))
        if bits > VALUE_BITS_MAX:
            found[-1] = bits, histogram + BUCKETS - 1  # all of its bits: the last bucket
    return tuple(found)


PLACES = (), *(_places(int(kind)) for kind in SampleKind)
