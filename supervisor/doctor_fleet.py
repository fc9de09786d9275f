"""Doctor, the fleet's part: whether this machine carries a file, and what dead fleets left."""

import os
import resource
import socket
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from shm.directory import base_directory, user_directory
from shm.errors import DirectoryRefused
from shm.segment_lock import is_held
from shm.stats import SUFFIX as STATS_SUFFIX
from supervisor import descriptors, ownership
from supervisor.capacity import TooLarge, memory_limits, refuse_if_too_large
from supervisor.doctor_process import capabilities, limit_text
from supervisor.fleet import Fleet
from supervisor.fleets import is_supervised
from supervisor.host import Finding, Health, Host, judged
from worker.endpoints import EVENTS, table_file
from worker.spec import ConnectionSpec

MIB = 2**20
SHARED_MEMORY_MIN = 64 * MIB
NICE_HIGHEST = 20  # RLIMIT_NICE is 20 minus the nice value (getrlimit(2))


def checks(host: Host, fleet: Fleet | None) -> Iterator[Finding]:
    """Yield what is found; ``fleet`` if a file was given."""
    connections = fleet.connections if fleet is not None else ()
    yield _shared_memory(fleet)
    yield _memory_limit(host)
    yield _open_files(len(connections))
    yield from _buffers(host, connections)
    yield _busy_poll(host, connections)
    if fleet is not None:
        yield _placing(connections)
        yield _urgency(host, connections)
    yield _leftovers()


def _shared_memory(fleet: Fleet | None) -> Finding:
    try:
        base = base_directory()
        space = os.statvfs(base)
        if fleet is not None:
            refuse_if_too_large(fleet)
    except (DirectoryRefused, TooLarge) as error:
        return Finding("shared_memory", Health.FAIL, str(error), "the fleet fits")
    free, size = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
    return judged(
        "shared_memory",
        fleet is not None or free >= SHARED_MEMORY_MIN,
        f"{base}: {free / MIB:,.0f} of {size / MIB:,.0f} MiB free",
        "the fleet fits" if fleet is not None else f"{SHARED_MEMORY_MIN // MIB} MiB free",
        f"mount -o remount,size=1G {base}",
    )


def _memory_limit(host: Host) -> Finding:
    limits = memory_limits(host.root / "sys/fs/cgroup", host.root / "proc/self/cgroup")
    found = min(limits, key=lambda limit: limit[1], default=None)
    text = f"{found[1] / MIB:,.0f} MiB ({found[0]})" if found is not None else "none"
    return Finding("memory_limit", Health.OK, text)


def _open_files(connections: int) -> Finding:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = descriptors.needed_by(connections)
    return judged(
        "open_files",
        hard == resource.RLIM_INFINITY or hard >= needed,
        f"at most {limit_text(hard)}",
        f"{needed:,}",
        "ulimit -Hn, or LimitNOFILE= of the unit",
        Health.FAIL,
    )


def _buffers(host: Host, connections: tuple[ConnectionSpec, ...]) -> Iterator[Finding]:
    for name, option in (("rmem_max", "receive_buffer"), ("wmem_max", "send_buffer")):
        limit = host.number(f"proc/sys/net/core/{name}")
        wanted = max((getattr(spec.socket, option) for spec in connections), default=0)
        if limit is None:
            yield Finding(name, Health.UNKNOWN, "not shown")
            continue
        yield judged(
            name,
            limit >= wanted,
            f"{limit:,}",
            f"{wanted:,}, the largest socket.{option}" if wanted else "",
            f"sysctl -w net.core.{name}={wanted}",
        )


def _busy_poll(host: Host, connections: tuple[ConnectionSpec, ...]) -> Finding:
    wanted = max((spec.socket.busy_poll_us for spec in connections), default=0)
    polls = host.number("proc/sys/net/core/busy_poll")
    if polls is None:
        return Finding("busy_poll", Health.UNKNOWN, "not shown")
    return judged(
        "busy_poll",
        bool(polls) or not wanted,
        f"net.core.busy_poll={polls}",
        "above 0, since connections want it" if wanted else "",
        f"sysctl -w net.core.busy_poll={wanted}: a loop waits in epoll, which polls only then",
    )


def _placing(connections: tuple[ConnectionSpec, ...]) -> Finding:
    loops: dict[int, list[str]] = defaultdict(list)
    for spec in connections:
        if len(spec.process.cpu) == 1:
            loops[spec.process.cpu[0]].append(spec.name)
    crowded = [
        f"CPU {cpu}: {', '.join(names)}" for cpu, names in sorted(loops.items()) if len(names) > 1
    ]
    free = [spec.name for spec in connections if spec.process.priority and not spec.process.cpu]
    found = crowded + ([f"realtime and not pinned: {', '.join(free)}"] if free else [])
    return judged(
        "placing",
        not found,
        "; ".join(found) or f"{sum(map(len, loops.values()))} loops on CPUs of their own",
        "one loop a CPU, realtime ones pinned",
        "give each a process.cpu of its own: a busy loop keeps the others, or the supervisor, off",
    )


def _urgency(host: Host, connections: tuple[ConnectionSpec, ...]) -> Finding:
    priority = max((spec.process.priority or 0 for spec in connections), default=0)
    nice = min((spec.process.nice or 0 for spec in connections), default=0)
    realtime_max, _ = resource.getrlimit(resource.RLIMIT_RTPRIO)
    nice_max, _ = resource.getrlimit(resource.RLIMIT_NICE)
    may_all = "CAP_SYS_NICE" in (capabilities(host) or set())
    short = []
    if priority and not may_all and 0 <= realtime_max < priority:
        short.append(f"LimitRTPRIO={priority}")
    if nice < 0 and not may_all and 0 <= nice_max < NICE_HIGHEST - nice:
        short.append(f"LimitNICE={nice}")
    wanted = [f"fifo:{priority}"] * bool(priority) + [f"nice {nice}"] * (nice < 0)
    return judged(
        "urgency",
        not short,
        f"rtprio {limit_text(realtime_max)}, nice {limit_text(nice_max)}"
        + (", CAP_SYS_NICE" if may_all else ""),
        ", ".join(wanted),
        f"{', '.join(short)} in the unit, or AmbientCapabilities=CAP_SYS_NICE",
    )


def _leftovers() -> Finding:
    found = [str(path) for path in (*_dead_segments(), *_dead_sockets())]
    return judged(
        "leftovers",
        not found,
        ", ".join(found) or "none",
        "none",
        "run that fleet again, which sweeps them, or remove them",
    )


def _dead_segments() -> Iterator[Path]:
    """Yield our directories of fleets that have neither a supervisor nor a worker."""
    try:
        directories = sorted(path for path in user_directory().iterdir() if path.is_dir())
    except (OSError, DirectoryRefused):
        return
    for directory in directories:
        segments = list(directory.glob(f"*{STATS_SUFFIX}"))
        is_fleet = segments or table_file(directory).exists()
        if is_fleet and not is_supervised(directory) and not any(map(is_held, segments)):
            yield directory


def _dead_sockets() -> Iterator[Path]:
    """Yield our runtime directories, at their default places, where nobody answers."""
    bases = [Path(f"/tmp/feedwarden-{os.geteuid()}")]
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        bases.append(Path(runtime) / "feedwarden")
    for base in bases:
        for path in sorted(base.glob(f"*/{EVENTS}")):
            try:
                if ownership.answering(path, socket.SOCK_STREAM) is None:
                    yield path.parent
            except OSError:
                continue
