"""Which process is which: pids are used again, start times and boots tell them apart (proc(5))."""

from functools import cache
from pathlib import Path

STAT_START_TIME = 22  # field of /proc/<pid>/stat, counted from 1


def start_ticks(pid: int) -> int:
    """
    Return the start time of a process in clock ticks since boot; 0 if it is gone or a zombie.

    With the pid it names a process without confusing it with a later one of the same number.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The command name stands in parentheses and may hold anything, spaces and ')' included.
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return 0
    return int(fields[STAT_START_TIME - 3])


@cache
def boot_id() -> bytes:
    """Return the 16 bytes that name this boot of the machine (random(4))."""
    return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", ""))
