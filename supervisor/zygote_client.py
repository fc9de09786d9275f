"""The supervisor's end of the zygote: starts it or finds it, asks it, hears of its children."""

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from shm.process import start_ticks
from supervisor.errors import EndpointRefused, ZygoteError
from supervisor.leftovers import Process
from supervisor.listener import listen
from supervisor.ownership import peer_pid
from supervisor.program import program
from supervisor.zygote_link import (
    End,
    Hello,
    Kept,
    Listen,
    Listening,
    Outgoing,
    Report,
    Request,
    Welcome,
    WorkerExited,
    WorkerSpawned,
    receive_report,
)

START_TIMEOUT_S = 20.0
REAP_S = 1.0  # from SIGKILL
ATTACH_S = 1.0  # one that is busy or was stopped answers within this, or another is started


class ZygoteClient:
    """
    One zygote process and the link to it, on the running asyncio loop.

    Args:
        path: Where the zygote is reached, ``<runtime_dir>/zygote.sock``.
        on_spawned: Called with the report and the pidfd (-1 if the fork failed), which it owns.
        on_exited: Called with each child's end.
        on_unheard: Called with name and error when a path could not be bound that nobody awaits.
        on_lost: Called once if the zygote ends without having been told to.

    Attributes:
        pid: The zygote's process, 0 if there is none.
        kept: Children that an adopted zygote had, pid 0: a listener of that name.

    """

    def __init__(
        self,
        path: Path,
        on_spawned: Callable[[WorkerSpawned, int], None],
        on_exited: Callable[[WorkerExited], None],
        on_unheard: Callable[[str, str], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._path = path
        self._on_spawned, self._on_exited = on_spawned, on_exited
        self._on_unheard, self.on_lost = on_unheard, on_lost
        self._loop = asyncio.get_running_loop()
        self._link: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None  # if it is our child
        self.pid = 0
        self._pidfd = -1
        self._ending = False
        self.kept: list[Kept] = []
        self._welcome: asyncio.Future[str] | None = None
        self._outgoing = Outgoing()
        self._listening: dict[str, asyncio.Future[socket.socket | None]] = {}

    def start(self) -> None:
        """
        Exec a zygote and connect. Requests wait in the socket until its imports are done.

        ``-P``: a folder named ``worker`` in the current directory is never run.

        Raises:
            ZygoteError: If there is no process or descriptor to be had.
            RuntimeDirectoryRefused: If something foreign stands at the path.

        """
        try:
            self._start()
        except OSError as error:
            self._reap()
            raise ZygoteError(f"cannot start the fork helper: {error}") from error

    def _start(self) -> None:
        door = listen(self._path, socket.SOCK_SEQPACKET)
        mine = os.getpid()
        command = [sys.executable, "-P", "-m", "supervisor.zygote", str(door.fileno())]
        try:
            self._process = subprocess.Popen(
                [*command, program(), str(mine), str(start_ticks(mine))],
                pass_fds=[door.fileno()],
                stdin=subprocess.DEVNULL,
            )
            self.pid = self._process.pid
            self._pidfd = os.pidfd_open(self.pid)
            link = _open_link()
            self._link = link
            link.connect(str(self._path))
        finally:
            door.close()
        self._greet(link)

    def _greet(self, link: socket.socket) -> None:
        link.setblocking(False)
        self._loop.add_reader(link, self._receive)
        self.request(Hello(program()))

    async def attach(self, former: Collection[Process]) -> str | None:
        """
        Find the zygote of an earlier supervisor that is dead, and be its supervisor from now on.

        What it tells of the past is in ``kept``, and the ends of its children have been reported,
        when this returns.

        Args:
            former: The zygotes that the earlier life had; nobody else is spoken to.

        Returns:
            What it runs (``supervisor.program``); ``None`` if there is none, or none that answers.

        """
        link = _open_link()
        link.setblocking(False)
        try:
            link.connect(str(self._path))
            self.pid = peer_pid(link)
            self._pidfd = os.pidfd_open(self.pid)
            # After pidfd_open, so that the number cannot have changed hands in between.
            if (self.pid, start_ticks(self.pid)) not in former:
                raise ProcessLookupError
        except OSError:
            link.close()
            self._forget()
            return None
        self._link = link
        self._welcome = self._loop.create_future()
        self._greet(link)
        try:
            return await asyncio.wait_for(self._welcome, ATTACH_S)
        except (TimeoutError, ZygoteError):
            self._forget()
            return None
        finally:
            self._welcome = None

    def _forget(self) -> None:
        """Let go of the process and leave it as it is."""
        self._drop_link()
        self._process, self.pid = None, 0
        if self._pidfd != -1:
            os.close(self._pidfd)
            self._pidfd = -1

    def leave(self) -> None:
        """Part from a zygote that goes on with its children, for the supervisor to come."""
        self._ending = True
        self._forget()

    def _reap(self) -> None:
        """Make an end of the process, however it stands, and of what leads to it."""
        self.kill()  # a stopped one too
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(REAP_S)
        elif self._pidfd != -1:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(REAP_S * 1000)
        self._forget()

    async def listen(self, name: str, path: Path, *, lend: bool = False) -> socket.socket | None:
        """
        Have the zygote bind ``path`` and keep the listener; return a duplicate if ``lend``.

        Raises:
            ZygoteError: If the path cannot be bound, or the zygote does not answer.

        """
        future: asyncio.Future[socket.socket | None] = self._loop.create_future()
        self._listening[name] = future
        self.request(Listen(name, str(path), lend))
        try:
            return await asyncio.wait_for(future, START_TIMEOUT_S)
        except TimeoutError:
            raise ZygoteError(
                f"the fork helper (pid {self.pid}) did not answer within {START_TIMEOUT_S:g} s"
            ) from None
        finally:
            self._listening.pop(name, None)

    def request(self, request: Request, descriptor: int | None = None) -> None:
        """
        Send a request; ``descriptor`` is duplicated, the caller keeps its own. Never blocks.

        Raises:
            ZygoteError: If there is no fork helper, or no descriptor to be had.

        """
        if self._link is None:
            raise ZygoteError("the fork helper is not running")
        try:
            self._outgoing.put(request, descriptor)
        except OSError as error:
            raise ZygoteError(f"cannot ask the fork helper: {error.strerror}") from error
        self._flush()
        with contextlib.suppress(OSError):  # a stopped one must answer
            signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)

    def kill(self) -> None:
        """Kill a zygote that does not answer; ``on_lost`` follows as at any other end of it."""
        if self._process is not None:
            self._process.kill()
        elif self._pidfd != -1:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def end(self, timeout_s: float) -> None:
        """Tell the zygote to end, wait for it, kill it if it does not. Children must be gone."""
        if not self.pid:
            return
        with contextlib.suppress(ZygoteError):
            self.request(End())
        self._ending = True
        if self._pidfd != -1:
            gone = self._loop.create_future()
            self._loop.add_reader(self._pidfd, _resolve, gone)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gone, timeout_s)
            self._loop.remove_reader(self._pidfd)
        self._reap()

    def _flush(self) -> None:
        link = self._link
        if link is None:
            return
        try:
            self._outgoing.send(link)
        except OSError:
            self._receive()  # its last reports; their descriptors are ours; finds the end too
            return
        if self._outgoing:
            self._loop.add_writer(link, self._flush)
        else:
            self._loop.remove_writer(link)

    def _receive(self) -> None:
        while self._link is not None:
            try:
                received = receive_report(self._link)
            except BlockingIOError:
                return
            except ConnectionResetError:
                # It ended with requests of ours unread. That is told once, and before what it had
                # said: its last reports are still to be read (unix(7) does not tell).
                continue
            except (OSError, msgspec.MsgspecError):
                received = None
            if received is None:
                self._lose()
                return
            self._dispatch(*received)

    def _dispatch(self, report: Report, descriptor: int | None) -> None:
        match report:
            case WorkerSpawned():
                self._on_spawned(report, -1 if descriptor is None else descriptor)
            case WorkerExited():
                self._on_exited(report)
            case Kept():
                self.kept.append(report)
            case Welcome(found):
                if self._welcome is not None and not self._welcome.done():
                    self._welcome.set_result(found)
            case Listening(name, error, refused):
                lent = None if descriptor is None else socket.socket(fileno=descriptor)
                future = self._listening.get(name)
                if future is None or future.done():
                    if lent is not None:
                        lent.close()
                    if error:
                        self._on_unheard(name, error)
                elif error:
                    future.set_exception(EndpointRefused(error) if refused else ZygoteError(error))
                else:
                    future.set_result(lent)

    def _lose(self) -> None:
        if self._ending:  # it was told to
            self._drop_link()
            return
        if self._welcome is not None:  # of an earlier life, and not ours yet
            self._drop_link()
            if not self._welcome.done():
                self._welcome.set_exception(ZygoteError("the fork helper ended"))
            return
        self._reap()  # it may have shut the link and live on
        for future in self._listening.values():
            if not future.done():
                future.set_exception(ZygoteError("the fork helper ended; its error is above"))
        self.on_lost()

    def _drop_link(self) -> None:
        if self._link is not None:
            self._loop.remove_reader(self._link)
            self._loop.remove_writer(self._link)
            self._link.close()
            self._link = None
        self._outgoing.drop()


def _open_link() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
