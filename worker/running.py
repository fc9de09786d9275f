"""Running code: what every worker runs is put side by side before the fork.

To call a function is to write to its code: to its count of references, and to what the interpreter
learns of it. So each page that holds code of a worker is copied into every worker, and where
imports leave it nearly every page of code holds some: of 7,500 functions a worker calls 400.

Which they are is written down in ``running.txt`` (``make running`` tries it out). What it names
and is not there, or the other way round, only costs memory.
"""

import gc
from pathlib import Path
from types import CodeType, FunctionType

NAMES = Path(__file__).with_name("running.txt")

_left: list[CodeType] = []  # kept: a gap would be allocated in


def gather() -> int:
    """Move the code of the functions named; return how many were found."""
    wanted = frozenset(NAMES.read_text().split())
    for found in gc.get_objects():
        if type(found) is FunctionType and f"{found.__module__}.{found.__qualname__}" in wanted:
            _left.append(found.__code__)
            found.__code__ = found.__code__.replace()
    return len(_left)
