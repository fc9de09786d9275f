"""One worker as a child process, without a supervisor: a listener, a segment, its endpoint."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import msgspec
import zmq

from shm.layout import Counter, SampleKind, Word
from shm.process import start_ticks
from shm.view import StatsView
from worker.envelope import Kind, decode
from worker.session import State
from worker.spec import Assignment

PATIENCE_S = 20.0
CHILD = """
import sys, msgspec
from worker.process import main, prepare
from worker.spec import Assignment
body = bytes.fromhex(sys.argv[2])
prepare()
sys.exit(main(msgspec.msgpack.decode(body, type=Assignment), int(sys.argv[1])))
"""


class WorkerProcess:
    """``spec`` run for the process ``supervisor_pid`` (default: the test)."""

    def __init__(self, folder, spec, *, incarnation=1, supervisor=None, listener=None, path=None):
        self.folder, self.spec = folder, spec
        self.name = spec.name
        self.shm = folder / "shm"
        self.shm.mkdir(mode=0o700, exist_ok=True)
        (folder / "data").mkdir(exist_ok=True)
        self.socket_path = folder / "data" / f"{spec.name}.sock"
        self.listener = listener or self._listen()
        pid, ticks = supervisor or (os.getpid(), start_ticks(os.getpid()))
        assignment = Assignment(
            fleet="t",
            incarnation=incarnation,
            runtime_dir=str(folder),
            shm_dir=str(self.shm),
            supervisor_pid=pid,
            supervisor_start_ticks=ticks,
            spec=spec,
        )
        self.log = folder / f"log.{incarnation}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    CHILD,
                    str(self.listener.fileno()),
                    msgspec.msgpack.encode(assignment).hex(),
                ],
                pass_fds=[self.listener.fileno()],
                stderr=log,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
                start_new_session=True,
            )
        self.view = None

    def _listen(self):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.socket_path))
        listener.listen(64)
        return listener

    def said(self):
        return self.log.read_text()

    def words(self):
        """Return the stats view of this incarnation, ``None`` before it has one."""
        if self.view is None:
            with contextlib.suppress(FileNotFoundError):
                view = StatsView.open(self.shm, self.name)
                if view.pid == self.process.pid:
                    self.view = view
                else:
                    view.close()
        return self.view

    def word(self, word: Word):
        view = self.words()
        return view.words[word] if view else 0

    def count(self, counter: Counter):
        view = self.words()
        return view.counters[counter] if view else 0

    def state(self):
        return State(self.word(Word.SESSION_STATE))

    def events(self):
        """Return ``(kind, body)`` of the event ring, oldest first."""
        view = self.words()
        return [(r.kind, json.loads(r.body)) for r in view.events(0, 256)[0]] if view else []

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.process.wait(PATIENCE_S)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        if self.view is not None:
            self.view.close()
        self.listener.close()


class Subscriber:
    """A plain SUB socket on a worker's endpoint; collects decoded frames."""

    def __init__(self, worker, *prefixes):
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 100_000)
        for prefix in prefixes or (b"",):
            self._socket.setsockopt(zmq.SUBSCRIBE, prefix)
        self._socket.connect(f"ipc://{worker.socket_path}")
        self.frames = []

    def read(self):
        """Take what is there; return all frames so far."""
        with contextlib.suppress(zmq.Again):
            while True:
                self.frames.append(decode(self._socket.recv(zmq.DONTWAIT)))
        return self.frames

    def of(self, kind: Kind):
        return [frame for frame in self.read() if frame.kind == kind]

    def close(self):
        self._socket.close(0)
        self._context.term()


__all__ = ["Counter", "SampleKind", "Subscriber", "Word", "WorkerProcess", "wait_for"]


def wait_for(condition, what, timeout_s=PATIENCE_S):
    """Poll until ``condition()`` is truthy and return what it gave."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.01)
    return result
