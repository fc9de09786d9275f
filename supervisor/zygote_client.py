"""The supervisor's end of the zygote: starts it, asks it, hears of its children."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from supervisor.errors import EndpointRefused, ZygoteError
from supervisor.listener import listen
from supervisor.zygote_link import (
    End,
    Listen,
    Listening,
    Report,
    Request,
    WorkerExited,
    WorkerSpawned,
    receive_report,
    send,
)

START_TIMEOUT_S = 20.0
REAP_S = 1.0  # from SIGKILL


class ZygoteClient:
    """
    One zygote process and the link to it, on the running asyncio loop.

    Args:
        path: Where the zygote is reached, ``<runtime_dir>/zygote.sock``.
        on_spawned: Called with the report and the pidfd (-1 if the fork failed), which it owns.
        on_exited: Called with each child's end.
        on_unheard: Called with name and error when a path could not be bound that nobody awaits.
        on_lost: Called once if the zygote ends without having been told to.

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
        self._on_unheard, self._on_lost = on_unheard, on_lost
        self._loop = asyncio.get_running_loop()
        self._link: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._ending = False
        self._unsent: deque[tuple[Request, int | None]] = deque()
        self._listening: dict[str, asyncio.Future[socket.socket | None]] = {}

    @property
    def pid(self) -> int:
        """The zygote's process, 0 if there is none."""
        return self._process.pid if self._process is not None else 0

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
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "supervisor.zygote", str(door.fileno())],
                pass_fds=[door.fileno()],
                stdin=subprocess.DEVNULL,
            )
            self._pidfd = os.pidfd_open(self._process.pid)
            link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            self._link = link
            link.connect(str(self._path))
        finally:
            door.close()
        link.setblocking(False)
        self._loop.add_reader(link, self._receive)

    def _reap(self) -> None:
        """Make an end of the process, however it stands, and of what leads to it."""
        self._drop_link()
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # a stopped one too
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(REAP_S)
        if self._pidfd != -1:
            os.close(self._pidfd)
            self._pidfd = -1

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
            kept = os.dup(descriptor) if descriptor is not None else None
        except OSError as error:
            raise ZygoteError(f"cannot ask the fork helper: {error.strerror}") from error
        self._unsent.append((request, kept))
        self._flush()

    def kill(self) -> None:
        """Kill a zygote that does not answer; ``on_lost`` follows as at any other end of it."""
        if self._process is not None:
            self._process.kill()

    async def end(self, timeout_s: float) -> None:
        """Tell the zygote to end, wait for it, kill it if it does not. Children must be gone."""
        if self._process is None:
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
        while self._unsent:
            request, descriptor = self._unsent[0]
            try:
                send(link, request, descriptor)
            except BlockingIOError:
                self._loop.add_writer(link, self._flush)
                return
            except OSError:
                self._receive()  # its last reports; their descriptors are ours; finds the end too
                return
            self._unsent.popleft()
            if descriptor is not None:
                os.close(descriptor)
        self._loop.remove_writer(link)

    def _receive(self) -> None:
        while self._link is not None:
            try:
                received = receive_report(self._link)
            except BlockingIOError:
                return
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
        self._reap()  # it may have shut the link and live on
        for future in self._listening.values():
            if not future.done():
                future.set_exception(ZygoteError("the fork helper ended; its error is above"))
        self._on_lost()

    def _drop_link(self) -> None:
        if self._link is not None:
            self._loop.remove_reader(self._link)
            self._loop.remove_writer(self._link)
            self._link.close()
            self._link = None
        for _request, descriptor in self._unsent:
            if descriptor is not None:
                os.close(descriptor)
        self._unsent.clear()


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
