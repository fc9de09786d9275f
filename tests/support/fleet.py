"""A real fleet as a test's child: a fleet.toml, ``supervisor run``, and what it tells."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from shm.errors import SegmentError
from supervisor.errors import FleetError
from supervisor.status import gather

PATIENCE_S = 40.0 * float(os.environ.get("FEEDWARDEN_TEST_PATIENCE", "1"))

BINANCE = """
[[connection]]
name = "{name}"
url = "{url}"
subscribe = ['{{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}}']
heartbeat = {{ interval = 0.5, timeout = 0.4 }}
"""

TOPICS = """
[[connection]]
name = "{name}"
url = "{url}"
topics = [{topics}]
subscribe_template = '{{"method":"SUBSCRIBE","params":${{topics}},"id":${{seq}}}}'
unsubscribe_template = '{{"method":"UNSUBSCRIBE","params":${{topics}},"id":${{seq}}}}'
"""


def binance(exchange, *names, extra=""):
    """Connections to the simulated Binance, tagged with their names."""
    return "".join(
        BINANCE.format(name=name, url=exchange.url("/binance", name)) + extra for name in names
    )


def wait_for(condition, what, timeout_s=PATIENCE_S):
    """Poll until ``condition()`` is truthy and return what it gave."""
    deadline = time.monotonic() + timeout_s
    while True:
        if result := condition():
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)


class Fleet:
    """``supervisor run`` of a written fleet.toml in directories of its own."""

    def __init__(self, folder: Path, toml: str, name: str = "t", prefix=()):
        self.prefix = prefix  # a command that runs the supervisor
        self.folder, self.name = folder, name
        self.runtime_dir = folder / "run"
        self.shm_base = folder / "shm"
        self.shm_base.mkdir(exist_ok=True)
        self.file = folder / "fleet.toml"
        head = f'version = 1\n[fleet]\nname = "{name}"\nruntime_dir = "{self.runtime_dir}"\n'
        self.file.write_text(head + toml)
        self.environment = os.environ | {"FEEDWARDEN_SHM": str(self.shm_base), "COLUMNS": "200"}
        self.process = None
        self.log = folder / "log"

    def start(self):
        before = self.said().count("READY ") if self.log.exists() else 0
        self.launch()
        wait_for(
            lambda: self.said().count("READY ") > before or self.process.poll() is not None,
            "READY",
        )
        assert self.process.poll() is None, self.said()
        return self

    def launch(self):
        """Start the supervisor and wait for nothing."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-P", "-m", "supervisor", "run", str(self.file)],
                env=self.environment,
                stderr=log,
                stdout=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self.process

    def said(self):
        return self.log.read_text()

    def command(self, *arguments, check=True):
        """Run another verb on this fleet."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "supervisor", *arguments],
            check=False,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if check:
            assert done.returncode == 0, (arguments, done.returncode, done.stderr)
        return done

    @property
    def shm_dir(self):
        return self.shm_base / f"feedwarden-{os.geteuid()}" / self.name

    def status(self):
        """What ``status --json`` prints, without the cost of an interpreter for each look."""
        try:
            return json.loads(json.dumps(gather(self.shm_dir).document))
        except (FleetError, SegmentError) as error:
            raise AssertionError(f"no status: {error}") from error

    def rows(self):
        return {row["name"]: row for row in self.status()["connections"]}

    def wait_up(self, *names, timeout_s=PATIENCE_S):
        """Wait until these (default: all) are up; return the rows by name."""

        def all_up():
            rows = self.rows()
            wanted = names or tuple(rows)
            return rows if all(rows[name]["state"] == "up" for name in wanted) else None

        try:
            return wait_for(all_up, f"up: {names or 'all'}", timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said()[-4000:]}") from None

    def stop(self, timeout_s=PATIENCE_S):
        """Ctrl-C; return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout_s)

    def shm_files(self):
        return sorted(str(p.relative_to(self.shm_base)) for p in self.shm_base.rglob("*"))

    def kill_everything(self):
        """SIGKILL whatever of this fleet is left, and what it forks meanwhile."""
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        if self.process is not None:
            self.process.wait(PATIENCE_S)

    def pids(self):
        """Every process of this fleet."""
        numbers = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
        return [pid for pid in numbers if pid != os.getpid() and self.owns(pid)]

    def owns(self, pid):
        """Return whether a process is of this fleet: they all carry its FEEDWARDEN_SHM."""
        marker = f"FEEDWARDEN_SHM={self.shm_base}".encode()
        with contextlib.suppress(OSError):
            return marker in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return False


@contextlib.contextmanager
def running_fleet(folder, toml, name="t", prefix=()):
    """A started fleet that leaves no process behind, whatever the test did to it."""
    fleet = Fleet(folder, toml, name, prefix)
    try:
        yield fleet.start()
    finally:
        fleet.kill_everything()
