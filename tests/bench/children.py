"""Children: the processes that take part, and one that obeys lines of JSON."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PEERS = HERE / "peers"
PATIENCE_S = 60.0
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "tests", ROOT / "tests" / "support", ROOT)))
}


class Failed(Exception):
    """A participant does not do what it is there for; the text says which and what."""


def wait_for(condition, what: str, timeout_s: float = PATIENCE_S):
    """Return what ``condition()`` gives once it is truthy. Raises Failed after the timeout."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline_s:
            raise Failed(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.005)
    return found


class Child:
    """A process that prints lines. A context manager; it does not outlive it."""

    def __init__(self, command, environment=None, log=None):
        self._name = Path(str(command[1])).name if len(command) > 1 else command[0]
        self._process = subprocess.Popen(
            [str(word) for word in command],
            env=environment or ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,
        )
        self._lines = b""

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def line(self, timeout_s: float = PATIENCE_S) -> str:
        """Return the next line it prints. Raises Failed if none comes."""
        deadline_s = time.monotonic() + timeout_s
        poll = select.poll()  # not select(2), which knows no descriptor above 1023
        poll.register(self._process.stdout, select.POLLIN)
        while b"\n" not in self._lines:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not poll.poll(left_s * 1000):
                raise Failed(f"{self._name} said nothing for {timeout_s:g} s")
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                raise Failed(f"{self._name} ended with {self._process.wait()}")
            self._lines += data
        line, _, self._lines = self._lines.partition(b"\n")
        return line.decode()

    def answer(self, timeout_s: float = PATIENCE_S) -> dict:
        """Return its next answer. Raises Failed if it is an error or none."""
        document = json.loads(self.line(timeout_s))
        if "error" in document:
            raise Failed(f"{self._name}: {document['error']}")
        return document

    def order(self, do: str, **order) -> dict:
        """Give an order and return the answer."""
        self._process.stdin.write(json.dumps({"do": do, **order}).encode() + b"\n")
        return self.answer()

    def counted(self) -> int:
        """Return what a peer has counted."""
        self._process.send_signal(signal.SIGUSR1)
        return int(self.line(10))

    def stop(self) -> None:
        """End it."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.stop()


class Exchange(Child):
    """The exchange's process."""

    def __init__(self, tls=None):
        command = [sys.executable, "-m", "bench.exchange_process"]
        super().__init__(command + (["--tls", *tls] if tls else []))
        self._scheme, self._port = "wss" if tls else "ws", self.answer()["port"]

    def url(self, tag: str) -> str:
        """Return where a client connects that shall be known by this tag."""
        return f"{self._scheme}://127.0.0.1:{self._port}/{tag}"

    def sessions(self) -> list[str]:
        """Return the tags of the open sessions."""
        return self.order("sessions")["tags"]

    def wait_session(self, tag: str, client: Child) -> None:
        """Wait until a client is connected. Raises Failed if it ends instead, or takes too long."""
        wait_for(lambda: tag in self.sessions() or client.ended(), f"{tag} connects", 15)
        if client.ended():
            raise Failed(f"{tag} ended before it was connected")

    def go(self, tags, traffic, *, rate: float, burst: int, count: int, stamps="") -> dict:
        """
        Send ``count`` messages and wait until they were read.

        Args:
            tags: Of the sessions; they take turns.
            traffic: As ``Options.traffic``.
            rate: Messages a second in all; 0 is as fast as they are read.
            burst: Messages in one write.
            count: How many.
            stamps: File for the times of the writes, int64 CLOCK_MONOTONIC.

        """
        order = {"traffic": traffic, "rate": rate, "burst": burst, "count": count}
        return self.order("go", tags=tags, stamps=str(stamps), **order)


class Listener(Child):
    """A subscriber's process (bench/subscriber_process.py)."""

    def __init__(self, *arguments, environment=None):
        whole = ENVIRONMENT | (environment or {})
        super().__init__([sys.executable, "-m", "bench.subscriber_process", *arguments], whole)
        self.answer()

    def wait_count(self, count: int, timeout_s: float = 2.0) -> int:
        """Wait until so many have come, or no more do; return how many."""
        deadline_s, seen = time.monotonic() + timeout_s, -1
        while (now := self.order("count")["count"]) < count and time.monotonic() < deadline_s:
            if now != seen:
                deadline_s, seen = time.monotonic() + timeout_s, now
            time.sleep(0.02)
        return now
