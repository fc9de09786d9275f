"""What a worker's writes into shared memory cost, in this process, on /dev/shm."""

import time

from bench import names
from bench.figures import alternated
from bench.options import Options
from shm.journal import Journal
from shm.layout import SampleKind
from shm.stats import StatsWriter

RTT = int(SampleKind.RTT)
FRAME = b"data.binance-btc\0" + bytes(40) + bytes(373)
TIMES = 200_000


def run(options: Options) -> None:
    """Measure a sample and a journal append, CPU time with loop and call."""
    stats = StatsWriter.create(options.subfolder(), "a", incarnation=1, ring_slots=16384)
    journal = Journal.take_over(options.subfolder(), "a", size=8 << 20, incarnation=1)
    try:
        _measure(options, stats, journal)
    finally:
        journal.close()
        stats.close()


def _measure(options: Options, stats: StatsWriter, journal: Journal) -> None:
    times = TIMES // 4 if options.quick else TIMES
    seq = 0

    def samples() -> None:
        record = stats.record
        for number in range(times):
            record(RTT, number, 1_234_567 + number)

    def appends() -> None:
        nonlocal seq
        append = journal.append
        for seq in range(seq + 1, seq + 1 + times):  # noqa: B020
            append(seq, FRAME)

    calls = {names.SAMPLE: samples, names.APPEND: appends}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _, name in alternated(list(calls), options.rounds + 1):
        began_ns = time.thread_time_ns()
        calls[name]()
        found[name].append((time.thread_time_ns() - began_ns) / times)
    for name, values in found.items():  # the first round touches the pages
        options.figures.add(names.MEMORY_COST, name, names.OURS, values[1:])


assert len(FRAME) == 430
