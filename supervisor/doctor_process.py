"""Doctor, the process's part: limits, rights, clocks and packages of whoever starts a fleet."""

import importlib.metadata
import itertools
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Iterator

import zmq

from supervisor import versions
from supervisor.host import Finding, Health, Host, judged, unknown
from supervisor.linux import CLOCK_UNSYNCHRONISED, clock_state

CAPABILITIES = {12: "CAP_NET_ADMIN", 14: "CAP_IPC_LOCK", 23: "CAP_SYS_NICE"}  # capabilities(7)
PYTHON_MIN = (3, 11)
CLOCK_READ_MAX_NS = 250
CLOCK_READS = 2_000
CLOCK_ROUNDS = 5
OUR_PACKAGES = ("supervisor", "worker", "shm")
OURS = "feedwarden"
LIMITS = {"memory_lock": resource.RLIMIT_MEMLOCK, "realtime_priority": resource.RLIMIT_RTPRIO}


def checks(host: Host) -> Iterator[Finding]:
    """Yield what is found."""
    yield _python()
    yield _packages()
    yield import_packages()
    yield _cpus(host)
    yield _capabilities(host)
    for name, number in LIMITS.items():
        soft, hard = map(limit_text, resource.getrlimit(number))
        found = soft if soft == hard else f"{soft}, at most {hard}"
        yield Finding(name, Health.OK, found)
    yield _clock_read()
    yield _wall_clock()


def limit_text(limit: int) -> str:
    """Return a resource limit for people."""
    return "unlimited" if limit == resource.RLIM_INFINITY else f"{limit:,}"


def capabilities(host: Host) -> set[str] | None:
    """Return which of the capabilities we could use are in force, ``None`` if it is not shown."""
    mask = host.field("proc/self/status", "CapEff")
    if mask is None:
        return None
    return {name for bit, name in CAPABILITIES.items() if int(mask, 16) >> bit & 1}


def _python() -> Finding:
    return judged(
        "python",
        sys.version_info[:2] >= PYTHON_MIN,
        platform.python_version(),
        "3.11 or later",
        "make the environment with a later Python",
        Health.FAIL,
    )


def _packages() -> Finding:
    found, missing = [f"libzmq {zmq.zmq_version()}"], []
    for name in versions.PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return judged(
        "packages",
        not missing,
        ", ".join(found) + "".join(f", no {name}" for name in missing),
        "all there",
        f"pip install {' '.join(missing)}, or {OURS} anew",
        Health.FAIL,
    )


def import_packages() -> Finding:
    """Return whether the import packages are ours alone: supervisord has one of the same name."""
    owners = importlib.metadata.packages_distributions()
    foreign = sorted(
        f"{package} of {owner}"
        for package in OUR_PACKAGES
        for owner in set(owners.get(package, ())) - {OURS}
    )
    return judged(
        "import_packages",
        not foreign,
        ", ".join(foreign) or f"{', '.join(OUR_PACKAGES)} of {OURS} alone",
        "nobody else's",
        f"install {OURS} in a virtual environment of its own",
        Health.FAIL,
    )


def _cpus(host: Host) -> Finding:
    mine = sorted(os.sched_getaffinity(0))
    online = host.text("sys/devices/system/cpu/online") or "?"
    return Finding("cpus", Health.OK, f"{','.join(map(str, mine))} of {online}")


def _capabilities(host: Host) -> Finding:
    held = capabilities(host)
    if held is None:
        return unknown("capabilities", "not shown")
    return Finding("capabilities", Health.OK, ", ".join(sorted(held)) or "none of use")


def _clock_read() -> Finding:
    cost_ns = min(_read_clock() for _ in range(CLOCK_ROUNDS))
    return judged(
        "clock_read",
        cost_ns <= CLOCK_READ_MAX_NS,
        f"{cost_ns:.0f} ns",
        f"{CLOCK_READ_MAX_NS} ns at most",
        "see clock_source: the clock is read by a system call",
    )


def _read_clock() -> float:
    """Return the median time between two stamps of the monotonic clock, in ns."""
    stamps = [time.monotonic_ns() for _ in range(CLOCK_READS)]
    return statistics.median(b - a for a, b in itertools.pairwise(stamps))


def _wall_clock() -> Finding:
    try:
        status, error_us = clock_state()
    except OSError as error:
        return unknown("wall_clock", f"adjtimex: {error.strerror}")
    synchronised = not status & CLOCK_UNSYNCHRONISED
    return judged(
        "wall_clock",
        synchronised,
        f"synchronised within {error_us / 1000:g} ms" if synchronised else "not synchronised",
        "synchronised",
        "start chronyd or another NTP client: exchange delays are measured against this clock",
    )
