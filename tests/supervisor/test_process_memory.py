"""Limits on what a worker holds, and how it is measured."""

import os
import subprocess
import sys

from supervisor.process_memory import Crossing, Limit, MemoryWatch, held_by
from worker.spec import ProcessSpec

MIB = 1 << 20


def test_without_limits_nothing_is_crossed():
    assert MemoryWatch().judge(ProcessSpec(), 1 << 50) is None


def test_a_soft_limit_is_told_once_until_well_below_it():
    watch, spec = MemoryWatch(), ProcessSpec(memory_soft=100)
    assert watch.judge(spec, 100) is None
    assert watch.judge(spec, 101) == Crossing(Limit.SOFT, 101, 100)
    assert watch.judge(spec, 99) is None
    assert watch.judge(spec, 150) is None
    assert watch.judge(spec, 89) is None
    assert watch.judge(spec, 101) == Crossing(Limit.SOFT, 101, 100)


def test_the_hard_limit_goes_before_the_soft_one():
    watch, spec = MemoryWatch(), ProcessSpec(memory_soft=100, memory_hard=200)
    assert watch.judge(spec, 201) == Crossing(Limit.HARD, 201, 200)


def test_what_a_process_holds_grows_with_what_it_fills():
    program = "import sys; a = bytearray(64 << 20); print(flush=True); sys.stdin.read()"
    small, large = (
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for code in (program.replace("64 << 20", "1"), program)
    )
    try:
        for process in (small, large):
            process.stdout.readline()
        grown = held_by(large.pid) - held_by(small.pid)
        assert 60 * MIB < grown < 70 * MIB
    finally:
        for process in (small, large):
            process.communicate()


def test_a_process_that_is_gone_holds_nothing():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert held_by(process.pid) == 0
    assert held_by(os.getpid()) > 0
