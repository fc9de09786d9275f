"""Leaks: what supervisor, fork helper and workers hold, and what is left when all is over."""

import contextlib
import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field

from faulty import name_of

SETTLE_S = 30.0


def descriptors_of(pid):
    """Return what a process has open, by kind."""
    found = Counter()
    with contextlib.suppress(OSError):
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found[re.sub(r"\d+", "N", os.readlink(f"/proc/{pid}/fd/{entry}"))] += 1
    return found


def held(fleet):
    """Return what each role holds; of the workers, what the one holds that has most."""
    roles = {"supervisor": Counter(), "fork helper": Counter(), "worker": Counter()}
    for pid in fleet.pids():
        name = name_of(pid)
        open_now = descriptors_of(pid)
        if pid == fleet.process.pid:
            roles["supervisor"] = open_now
        elif name == "fw-zygote":
            roles["fork helper"] = open_now
        elif name.startswith("fw:") and open_now.total() > roles["worker"].total():
            roles["worker"] = open_now
    return roles


def steady(fleet):
    """Return what is held once it has not changed for a second."""
    deadline = time.monotonic() + SETTLE_S
    former, since = None, 0.0
    while time.monotonic() < deadline:
        now = {role: found.total() for role, found in held(fleet).items()}
        if now != former:
            former, since = now, time.monotonic()
        elif time.monotonic() - since > 1:
            break
        time.sleep(0.1)
    return held(fleet)


@dataclass
class Leaks:
    """What was gained, in words; nothing if all is well."""

    descriptors: list = field(default_factory=list)
    files: list = field(default_factory=list)
    processes: list = field(default_factory=list)


def gained(fleet, before, leaks):
    """Note the descriptors that are more than before, after a time for them to be closed."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        now = held(fleet)
        more = [role for role in now if now[role].total() > before[role].total()]
        if not more or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    for role in more:
        leaks.descriptors += [f"{role}: {kind}" for kind in (now[role] - before[role]).elements()]


def left(fleet, leaks):
    """Note what the end has left."""
    deadline = time.monotonic() + SETTLE_S
    while fleet.pids() and time.monotonic() < deadline:
        time.sleep(0.1)
    leaks.processes += [f"{pid} {name_of(pid)}" for pid in fleet.pids()]
    leaks.files += fleet.shm_files()
    leaks.files += [str(path) for path in fleet.runtime_dir.rglob("*")]
