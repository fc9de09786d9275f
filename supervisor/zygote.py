"""Zygote: forks workers from preloaded imports, keeps every listening socket, reaps. No policy.

A process of its own, exec'd by the supervisor, so that a worker costs a fork (about 10 ms and 5
MiB) instead of an interpreter start (160 ms and 22 MiB), and a restart never frees a socket path.
It has one thread, no event loop and no ZeroMQ context: forking is safe only without them
(threads and their locks do not survive fork(2)), and it refuses to fork otherwise.

It outlives its supervisor until the last child is gone, so that every child is reaped.
"""

import contextlib
import gc
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections import deque
from pathlib import Path

import msgspec

from supervisor.errors import FleetError
from supervisor.listener import listen
from supervisor.ownership import peer_pid
from supervisor.zygote_link import (
    End,
    Listen,
    Listening,
    Report,
    SpawnWorker,
    Unlisten,
    WorkerExited,
    WorkerSpawned,
    receive_request,
    send,
)
from worker import runner
from worker.exits import Exit
from worker.linux import kill_group, set_process_name, signal_name
from worker.spec import Assignment

NO_ROOM_S = 0.05
FIRST_CONTACT_S = 10.0  # a helper that nobody calls ends


class Zygote:
    """
    The fork helper's whole state.

    Args:
        door: Listening SOCK_SEQPACKET socket. The last link counts.
        supervisor: The only process that is let in.

    """

    def __init__(self, door: socket.socket, supervisor: int) -> None:
        self._door, self._supervisor = door, supervisor
        self._link: socket.socket | None = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(door, selectors.EVENT_READ)
        self._listeners: dict[str, socket.socket] = {}
        self._children: dict[int, int] = {}  # pidfd -> pid
        self._unsent: deque[tuple[Report, int | None]] = deque()
        self._ending = False

    def serve(self) -> None:
        """Answer requests and reap children until told to end, or left alone, and childless."""
        deadline = time.monotonic() + FIRST_CONTACT_S
        while self._link is None and (left := deadline - time.monotonic()) > 0:
            for _key, _events in self._selector.select(left):
                self._admit()
        while self._children or (self._link is not None and not self._ending):
            for key, _events in self._selector.select():
                if key.fileobj is self._door:
                    self._admit()
                elif key.fileobj is self._link:
                    self._talk(self._link)
                elif isinstance(key.fileobj, int):
                    self._reap(key.fileobj)

    def _admit(self) -> None:
        try:
            link, _address = self._door.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptor to be had: the caller waits, and so do we, not spinning
            time.sleep(NO_ROOM_S)
            return
        if peer_pid(link) != self._supervisor:
            link.close()
            return
        if self._link is not None:
            self._lose_supervisor(self._link)
        link.setblocking(False)
        self._link = link
        self._selector.register(link, selectors.EVENT_READ)

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
        if descriptor is not None:
            os.close(descriptor)

    def _listen(self, request: Listen) -> None:
        try:
            if request.name not in self._listeners:
                self._listeners[request.name] = listen(Path(request.path))
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
                _refuse_threads()
                pid = os.fork()
                if pid == 0:
                    _become_worker(listener, assignment)
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
        self._children[pidfd] = pid
        self._selector.register(pidfd, selectors.EVENT_READ)
        self._report(WorkerSpawned(name, incarnation, pid), pidfd)

    def _reap(self, pidfd: int) -> None:
        pid = self._children.pop(pidfd)
        kill_group(pid)
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        assert result is not None
        self._selector.unregister(pidfd)
        os.close(pidfd)
        if result.si_code == os.CLD_EXITED:
            self._report(WorkerExited(pid, result.si_status, ""))
        else:
            self._report(WorkerExited(pid, None, signal_name(result.si_status)))

    def _report(self, report: Report, descriptor: int | None = None) -> None:
        # Never blocks: a stopped supervisor must not stop the reaping.
        if self._link is None:
            return
        kept = None
        if descriptor is not None:
            with contextlib.suppress(OSError):  # the supervisor can do without
                kept = os.dup(descriptor)
        self._unsent.append((report, kept))
        self._flush()

    def _flush(self) -> None:
        while self._unsent and self._link is not None:
            report, descriptor = self._unsent[0]
            try:
                send(self._link, report, descriptor)
            except BlockingIOError:
                break
            except OSError:
                self._lose_supervisor(self._link)
                return
            self._unsent.popleft()
            if descriptor is not None:
                os.close(descriptor)
        if self._link is not None:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
            self._selector.modify(self._link, wanted)

    def _lose_supervisor(self, link: socket.socket) -> None:
        self._selector.unregister(link)
        link.close()
        self._link = None
        for _report, descriptor in self._unsent:
            if descriptor is not None:
                os.close(descriptor)
        self._unsent.clear()


def _refuse_threads() -> None:
    threads = os.listdir("/proc/self/task")
    if len(threads) != 1:
        names = _thread_names(threads)
        raise RuntimeError(f"refused to fork with {len(threads)} threads: {names}")


def _thread_names(threads: list[str]) -> str:
    names = []
    for thread in threads:
        with contextlib.suppress(OSError):
            names.append(Path(f"/proc/self/task/{thread}/comm").read_text().strip())
    return ", ".join(names)


def _become_worker(listener: socket.socket, assignment: int) -> None:
    """Turn the forked child into a worker. Never returns: ``os._exit`` runs no parent's cleanup."""
    code = int(Exit.BUG)
    try:
        os.setsid()
        # SIGPIPE stays ignored: a peer that hangs up must be an error, not a death.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        keep = {0, 1, 2, listener.fileno(), assignment}
        for entry in os.listdir("/proc/self/fd"):
            if int(entry) not in keep:
                with contextlib.suppress(OSError):
                    os.close(int(entry))
        size = os.fstat(assignment).st_size
        body = os.pread(assignment, size, 0)
        os.close(assignment)
        code = runner.main(msgspec.msgpack.decode(body, type=Assignment), listener.fileno())
    except BaseException:
        with contextlib.suppress(BaseException):  # stderr may be broken, or gone
            traceback.print_exc()
    finally:
        try:
            with contextlib.suppress(BaseException):
                sys.stderr.flush()
        finally:
            os._exit(code)


def main() -> None:
    """Serve at the listening socket whose number is the first argument."""
    supervisor = os.getppid()
    os.setsid()  # the terminal's Ctrl-C and hang-up are the supervisor's alone
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    set_process_name("fw-zygote")
    door = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(door.fileno(), False)
    door.setblocking(False)
    gc.collect()
    gc.freeze()  # later collections leave the shared pages alone
    Zygote(door, supervisor).serve()


if __name__ == "__main__":
    main()
