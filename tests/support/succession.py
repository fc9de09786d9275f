"""A supervisor that is killed, and who goes on with what it left."""

import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from faulty import name_of
from fleet import PATIENCE_S, wait_for

from shm.layout import HEADER, HEADER_FIELDS
from shm.process import start_ticks
from supervisor.program import PACKAGES
from supervisor.registry_layout import SLOT_BYTES, SLOTS_OFFSET
from supervisor.registry_view import RegistryView
from supervisor.slot import pack


def zygotes(fleet):
    return [pid for pid in fleet.pids() if name_of(pid) == "fw-zygote" and start_ticks(pid)]


def slay(fleet, *victims):
    """SIGKILL the supervisor and more, all at once."""
    for pid in (fleet.process.pid, *victims):
        os.kill(pid, signal.SIGKILL)
    fleet.process.wait(20)
    for pid in victims:
        wait_for(lambda pid=pid: not start_ticks(pid), f"{pid} is gone")


def ids_of_sessions(exchange):
    return sorted(session["id"] for session in exchange.sessions())


def processes(rows):
    return {name: (row["pid"], row["incarnation"]) for name, row in rows.items()}


def hand_over(fleet):
    """``shutdown --keep``, and the next run; return how long nobody supervised, in seconds."""
    assert fleet.tell("shutdown", keep=True).error == ""
    assert fleet.process.wait(PATIENCE_S) == 0
    ended_s = time.monotonic()
    fleet.start()
    return time.monotonic() - ended_s


def another_build(folder, **broken):
    """Copy the packages, so that they are another build; return what PYTHONPATH must be.

    ``broken`` names files by package, such as ``worker="runner.py"``, that cannot be imported.
    """
    home = Path(__file__).parent.parent.parent
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(home / package, folder / package, ignore=ignored)
    (folder / "worker" / "exits.py").touch()
    for package, name in broken.items():
        with (folder / package / name).open("a") as file:
            file.write("\nraise ImportError('a slip of the pen')\n")
    return str(folder)


# The table ---------------------------------------------------------------------------------------


def overwrite(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def offset_of(field):
    """Where a field of the header begins."""
    parts = re.findall(r"\d*[a-zA-Z]", HEADER.format)
    return struct.calcsize("<" + "".join(parts[: HEADER_FIELDS.index(field)]))


SPOILT = {
    "missing": lambda table: table.unlink(),
    "empty": lambda table: os.truncate(table, 0),
    "cut": lambda table: os.truncate(table, SLOTS_OFFSET + 100),
    "of another version": lambda table: overwrite(table, offset_of("major"), b"\x63\0"),
    "of another build": lambda table: overwrite(table, offset_of("layout_hash"), b"\1" * 8),
    "of another boot": lambda table: overwrite(table, offset_of("boot_id"), b"\1" * 16),
    "garbage": lambda table: overwrite(table, SLOTS_OFFSET, os.urandom(2 * SLOT_BYTES)),
}


def forge(fleet, name, **fields):
    """Write other fields into a connection's slot of the table that nobody owns any more."""
    with RegistryView.open(fleet.shm_dir) as view:
        slot = view.former()[name].slot
    table = fleet.shm_dir / "registry"
    overwrite(table, table.read_bytes().index(pack(slot)), pack(replace(slot, **fields)))


class Stranger:
    """A process that is none of ours and keeps what it is sent: every signal is blocked."""

    PROGRAM = (
        "import signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
        "print('blocked', flush=True)\n"
        "input()\n"
        "print(*(int(number) for number in signal.sigpending()))\n"
    )

    def __enter__(self):
        command = [sys.executable, "-c", self.PROGRAM]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"]},  # nothing by which the fleet's processes are known
        )
        assert self._process.stdout.readline() == "blocked\n"
        self.pid = self._process.pid
        return self

    def assert_left_alone(self):
        """Let it end and tell; SIGKILL would have ended it before."""
        assert self._process.poll() is None
        pending, _ = self._process.communicate("\n", timeout=20)
        assert (self._process.returncode, pending) == (0, "\n")

    def __exit__(self, *_exception):
        self._process.kill()
        self._process.communicate()
