"""Probes: what the kernel says of a process, and what machine and versions this is."""

import ctypes
import importlib.metadata
import os
import platform
from pathlib import Path

PACKAGES = ("websockets", "picows", "uvloop", "pyzmq")
PR_SET_TIMERSLACK = 29  # prctl(2)


def cpu_ns(*pids: int) -> int:
    """
    Return the time that all threads of processes have run, user and system, in nanoseconds.

    From ``/proc/<pid>/task/*/schedstat`` (sched-stats in the kernel's documentation): exact where
    the ticks of stat are 10 ms. Short of threads that have ended, and of a slice not ended yet.

    Raises:
        FileNotFoundError: If a process is gone or the kernel has no schedstat.

    """
    return sum(
        int((task / "schedstat").read_text().split()[0])
        for pid in pids
        for task in Path(f"/proc/{pid}/task").iterdir()
    )


def memory_mib(pid: int) -> float:
    """Return Pss_Anon + Pss_File: shared pages divided, shared memory not counted (proc(5))."""
    kib = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Pss_Anon", "Pss_File"):
            kib += int(rest.split()[0])
    return kib / 1024


def wake_on_time() -> None:
    """Let this process sleep to the nanosecond asked for instead of 50 µs longer."""
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)


def machine() -> dict[str, str]:
    """Return what a reader of figures must know: hardware, system, versions."""
    import zmq

    facts = {"processor": _processor(), "cores": str(os.cpu_count())}
    facts["kernel"] = platform.release()
    facts["Python"] = platform.python_version()
    for package in PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "not installed"
    facts["libzmq"] = zmq.zmq_version()
    facts["load before"] = f"{os.getloadavg()[0]:.2f}"
    return facts


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
