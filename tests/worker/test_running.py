"""Which functions a worker runs, and that their code lies side by side."""

import gc
import subprocess
import sys
from types import FunctionType

from supervisor import zygote
from worker.running import NAMES

GATHERED = """
import gc
from types import FunctionType
from supervisor import zygote
from worker import running

def pages():
    named = (it for it in gc.get_objects() if type(it) is FunctionType)
    code = [it.__code__ for it in named if f"{it.__module__}.{it.__qualname__}" in names]
    return len({id(each) >> 12 for each in code})

names = set(running.NAMES.read_text().split())
before, moved = pages(), running.gather()
assert moved > len(names) / 2, moved
assert pages() < before / 2, (pages(), before)
assert zygote.Path("/a/b").with_name("c") == zygote.Path("/a/c"), "what was moved still runs"
"""


def test_nearly_every_function_of_ours_that_is_listed_is_there():
    """A few that were renamed since only cost memory; when it is many, run ``make running``."""
    assert zygote.main
    functions = (each for each in gc.get_objects() if type(each) is FunctionType)
    there = {f"{each.__module__}.{each.__qualname__}" for each in functions}
    ours = {name for name in NAMES.read_text().split() if name.startswith(("worker.", "shm."))}
    assert len(ours) > 200
    gone = ours - there
    assert len(gone) <= len(ours) // 20, f"make running: {sorted(gone)}"


def test_code_that_workers_run_lies_in_few_pages_and_still_runs():
    subprocess.run([sys.executable, "-c", GATHERED], check=True)
