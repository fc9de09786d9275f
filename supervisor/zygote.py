"""Zygote: forks workers from preloaded imports, keeps every listening socket, reaps. No policy.

A process of its own, exec'd by the supervisor, so that a worker costs a fork (about 10 ms and 5
MiB) instead of an interpreter start (160 ms and 22 MiB), and a restart never frees a socket path.
It has one thread, no event loop and no ZeroMQ context: forking is safe only without them
(threads and their locks do not survive fork(2)), and it refuses to fork otherwise.

It outlives its supervisor until the last child is gone, so that every child is reaped. Once the
supervisor is dead, the next one of the same user may take its place: it is told what is kept here,
and how the last children ended.
"""

import gc
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import msgspec

from shm.process import start_ticks
from supervisor.errors import FleetError
from supervisor.linux import kill_group, signal_name
from supervisor.listener import BACKLOG, listen
from supervisor.ownership import peer
from supervisor.zygote_child import become_worker, refuse_threads
from supervisor.zygote_link import (
    End,
    Hello,
    Kept,
    Listen,
    Listening,
    Outgoing,
    Report,
    SpawnWorker,
    Unlisten,
    Welcome,
    WorkerExited,
    WorkerSpawned,
    receive_request,
)
from worker import process, running
from worker.memory import fill_gaps
from worker.process_name import set_process_name

NO_ROOM_S = 0.05
FIRST_CONTACT_S = 10.0  # a helper that nobody calls ends
VISITORS_MAX = 8  # who have not said yet what they want
ENDS_KEPT = 1024  # for a supervisor that comes later


@dataclass(frozen=True, slots=True)
class Child:
    """A worker that was forked here."""

    name: str
    incarnation: int
    pid: int


class Zygote:
    """
    The fork helper's whole state.

    Args:
        door: Listening SOCK_SEQPACKET socket.
        supervisor: Pid and start ticks. While it lives nobody else is let in.
        program: The build that was imported here (``supervisor.program``).

    """

    def __init__(self, door: socket.socket, supervisor: tuple[int, int], program: str) -> None:
        self._door, self._supervisor, self._program = door, supervisor, program
        self._link: socket.socket | None = None
        self._visitors: dict[socket.socket, int] = {}  # and which process each is
        self._selector = selectors.DefaultSelector()
        self._selector.register(door, selectors.EVENT_READ)
        self._listeners: dict[str, socket.socket] = {}
        self._children: dict[int, Child] = {}  # by pidfd
        self._ends: deque[WorkerExited] = deque(maxlen=ENDS_KEPT)
        self._outgoing = Outgoing()
        self._ending = False

    def serve(self) -> None:
        """Answer requests and reap children until told to end, or left alone, and childless."""
        deadline = time.monotonic() + FIRST_CONTACT_S
        while self._link is None and (left := deadline - time.monotonic()) > 0:
            self._turn(left)
        while self._children or (self._link is not None and not self._ending):
            self._turn(None)

    def _turn(self, timeout_s: float | None) -> None:
        for key, _events in self._selector.select(timeout_s):
            source = key.fileobj
            if source is self._door:
                self._admit()
            elif source is self._link:
                self._talk(self._link)
            elif isinstance(source, socket.socket) and source in self._visitors:
                self._hear_out(source)
            elif isinstance(source, int) and source in self._children:
                self._reap(source)

    def _admit(self) -> None:
        try:
            visitor, _address = self._door.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptor to be had: the caller waits, and so do we, not spinning
            time.sleep(NO_ROOM_S)
            return
        pid, uid = peer(visitor)
        mine, ticks = self._supervisor
        vacant = not ticks or start_ticks(mine) != ticks
        if uid != os.geteuid() or not (pid == mine or vacant):
            visitor.close()
            return
        visitor.setblocking(False)
        if len(self._visitors) == VISITORS_MAX:
            self._dismiss(next(iter(self._visitors)))
        self._visitors[visitor] = pid
        self._selector.register(visitor, selectors.EVENT_READ)

    def _dismiss(self, visitor: socket.socket) -> None:
        self._visitors.pop(visitor)
        self._selector.unregister(visitor)
        visitor.close()

    def _hear_out(self, visitor: socket.socket) -> None:
        """Let a supervisor in by its first message, and nobody else: many only look who answers."""
        try:
            received = receive_request(visitor)
        except BlockingIOError:
            return
        except (ConnectionError, msgspec.MsgspecError):
            received = None
        if received is not None and received[1] is not None:
            os.close(received[1])
        if received is None or not isinstance(received[0], Hello):
            self._dismiss(visitor)
            return
        if self._link is not None:
            self._lose_supervisor(self._link)
        pid = self._visitors.pop(visitor)
        self._link, self._supervisor, self._ending = visitor, (pid, start_ticks(pid)), False
        for end in self._ends:
            self._report(end)
        for name in self._listeners:
            self._report(Kept(name))
        for child in self._children.values():
            self._report(Kept(child.name, child.incarnation, child.pid))
        self._report(Welcome(self._program))

    def _talk(self, link: socket.socket) -> None:
        self._flush()
        if self._link is not link:  # it turned out to be gone
            return
        try:
            received = receive_request(link)
        except (BlockingIOError, msgspec.MsgspecError):
            return
        except ConnectionError:
            received = None
        if received is None:
            self._lose_supervisor(link)
            return
        request, descriptor = received
        match request:
            case Listen():
                self._listen(request)
            case Unlisten(name):
                if name in self._listeners:
                    self._listeners.pop(name).close()
            case SpawnWorker(name, incarnation):
                self._spawn(name, incarnation, descriptor)
            case End():
                self._ending = True
            case Hello():
                pass
        if descriptor is not None:
            os.close(descriptor)

    def _listen(self, request: Listen) -> None:
        try:
            former = self._listeners.get(request.name)
            if former is None or not os.path.lexists(request.path):  # somebody removed it
                self._listeners[request.name] = listen(Path(request.path))
                if former is not None:
                    former.close()
        except (FleetError, OSError) as error:
            refused = isinstance(error, FleetError)
            self._report(Listening(request.name, str(error), refused=refused))
            return
        lent = self._listeners[request.name].fileno() if request.lend else None
        self._report(Listening(request.name), lent)

    def _spawn(self, name: str, incarnation: int, assignment: int | None) -> None:
        listener = self._listeners.get(name)
        if listener is None or assignment is None:
            error = f"no listener or no assignment for {name!r}"
        else:
            try:
                refuse_threads()
                pid = os.fork()
                if pid == 0:
                    become_worker(listener, assignment)
                self._watch(name, incarnation, pid)
                return
            except OSError as failure:
                error = f"fork: {failure.strerror}"
            except RuntimeError as failure:
                error = str(failure)
        self._report(WorkerSpawned(name, incarnation, 0, error))

    def _watch(self, name: str, incarnation: int, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # nobody could tell its death: it must not live
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._children[pidfd] = Child(name, incarnation, pid)
        self._selector.register(pidfd, selectors.EVENT_READ)
        self._report(WorkerSpawned(name, incarnation, pid), pidfd)

    def _reap(self, pidfd: int) -> None:
        pid = self._children.pop(pidfd).pid
        kill_group(pid)
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        assert result is not None
        self._selector.unregister(pidfd)
        os.close(pidfd)
        if result.si_code == os.CLD_EXITED:
            end = WorkerExited(pid, result.si_status, "")
        else:
            end = WorkerExited(pid, None, signal_name(result.si_status))
        # A report that was sent may still be read by nobody: the supervisor dies at any time.
        self._ends.append(end)
        self._report(end)

    def _report(self, report: Report, descriptor: int | None = None) -> None:
        # Never blocks: a stopped supervisor must not stop the reaping.
        if self._link is None:
            return
        try:
            self._outgoing.put(report, descriptor)
        except OSError:
            self._outgoing.put(report)  # the supervisor can do without
        self._flush()

    def _flush(self) -> None:
        if self._link is None:
            return
        try:
            self._outgoing.send(self._link)
        except OSError:
            self._lose_supervisor(self._link)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outgoing else 0)
        self._selector.modify(self._link, wanted)

    def _lose_supervisor(self, link: socket.socket) -> None:
        self._selector.unregister(link)
        link.close()
        self._link = None
        self._outgoing.drop()


def main() -> None:
    """Serve; arguments are the listening socket's number, and whose helper this is."""
    number, program, pid, ticks = sys.argv[1:5]
    os.setsid()  # the terminal's Ctrl-C and hang-up are the supervisor's alone
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    set_process_name("fw-zygote")
    door = socket.socket(fileno=int(number))
    os.set_inheritable(door.fileno(), False)
    door.setblocking(False)
    door.listen(BACKLOG)  # again: who connects shall see that it is us (SO_PEERCRED)
    process.prepare()
    gc.collect()
    fill_gaps()
    running.gather()
    # Its entries hold the names they were looked up by: to replace one is to write to both.
    sys._clear_type_cache()
    gc.freeze()  # later collections leave the shared pages alone
    Zygote(door, (int(pid), int(ticks)), program).serve()


if __name__ == "__main__":
    main()
