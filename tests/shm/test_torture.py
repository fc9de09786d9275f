"""Two processes, one writing flat out: torn records are never accepted, and would be noticed.

The controls break the rules on purpose. A test that cannot catch them proves nothing.
"""

import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from shm.layout import SAMPLE, stats_layout
from shm.reader import SAMPLE_DTYPE, Reader
from shm.stats import StatsWriter

PATIENCE_S = 30.0

# value_ns, exchange_ns and aux all follow from the number: a mixture of two records shows.
WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from shm.layout import SAMPLE, SAMPLE_BYTES, Word
    from shm.stats import StatsWriter
    how = sys.argv[2]
    writer = StatsWriter.create(Path(sys.argv[1]), "a", incarnation=1, ring_slots=1024)
    print("up", flush=True)
    words, memory, offset = writer.words, writer._memory, writer._layout.samples.offset
    number = 0
    while True:
        number += 1
        if how == "right":
            writer.record(1, number * 3, number, exchange_ns=number * 5, aux=number * 7)
            continue
        fields = (number, number * 3, number, 0, 1, 0, number * 5, number * 7, 0, 0, 0,
                  number & 0xFFFFFFFF)
        start = offset + (number & 1023) * SAMPLE_BYTES
        if how == "pack_into":  # zero-fills live memory, and announces nothing before
            SAMPLE.pack_into(memory, start, *fields)
        elif how == "no_intent":  # head and tail agree in the end, and nothing says when
            packed = SAMPLE.pack(*fields)
            for piece in range(0, SAMPLE_BYTES, 8):
                memory[start + piece:start + piece + 8] = packed[piece:piece + 8]
        words[Word.SAMPLE_INTENT] = number
        words[Word.SAMPLE_PUBLISH] = number
    """
)


@pytest.fixture
def writing(tmp_path, request):
    command = [sys.executable, "-c", WRITER, str(tmp_path), request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"up\n"
        yield tmp_path
        writer.kill()


def torn(samples):
    number = samples["value_ns"]
    whole = (
        (samples["seq"].astype(np.int64) == number)
        & (samples["time_ns"] == number * 3)
        & (samples["exchange_ns"] == number * 5)
        & (samples["aux"] == number * 7)
    )
    return int(len(samples) - np.count_nonzero(whole))


@pytest.mark.parametrize("writing", ["right"], indirect=True)
def test_no_torn_record_is_accepted(writing):
    accepted, until = 0, time.monotonic() + 4
    with Reader(writing, "a") as reader:
        while time.monotonic() < until:
            samples = reader.samples()
            accepted += len(samples)
            assert torn(samples) == 0
            assert (np.diff(samples["seq"].astype(np.int64)) == 1).all()
        assert reader.bad_records == 0
    assert accepted > 100_000


@pytest.mark.parametrize("writing", ["pack_into", "no_intent"], indirect=True)
def test_a_writer_that_breaks_the_rule_is_caught_tearing(writing):
    """Seen in the raw bytes, or by the reader's own check of what should be valid."""
    until = time.monotonic() + PATIENCE_S
    with Reader(writing, "a") as reader:
        while time.monotonic() < until:
            if torn(reader.samples()) or reader.bad_records:
                return
    raise AssertionError("the negative control was not caught: the torture test is blind")


def test_numpy_and_struct_see_the_same_bytes(tmp_path):
    writer = StatsWriter.create(tmp_path, "a", incarnation=1, ring_slots=1024)
    packed = SAMPLE.pack(1, -2, 3, 4, 5, 6, -7, 8, 9, 10, 11, 1)
    seen = np.frombuffer(packed, SAMPLE_DTYPE)[0]
    assert seen.tolist() == SAMPLE.unpack(packed)
    assert stats_layout(1024).samples.offset % 64 == 0
    writer.close()
