"""Worker process: the process of a connection as the supervisor holds it, by pidfd.

One after the other, forked for us or found alive. Its death is seen at once, how it died is asked
of whoever knows: of the kernel if it is our child, of its fork helper if that says so soon enough,
of the kernel again for what others have reaped.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable

from shm.process import start_ticks
from supervisor.linux import ended_how, kill_group, signal_name

log = logging.getLogger("supervisor.worker_process")

STATUS_WAIT_S = 0.05  # how long a seen death waits for the zygote's word on how it came


class WorkerProcess:
    """
    The process of one connection, on the running loop.

    Args:
        name: The connection.
        on_end: Called when it is gone, with its exit code, or the name of the signal that ended
            it, or ``None`` twice if nobody knows. It takes ``pid`` away.

    Attributes:
        pid: Of the process, 0 without one.
        start_ticks: When that started (``shm.process.start_ticks``).

    """

    def __init__(self, name: str, on_end: Callable[[int | None, str | None], None]) -> None:
        self._name, self._on_end = name, on_end
        self._loop = asyncio.get_running_loop()
        self.pid = self.start_ticks = 0
        self._pidfd = -1
        self._death_timer: asyncio.TimerHandle | None = None
        self._waiting: list[str] = []

    def begin(self) -> None:
        """Another one is being forked: what was to be sent to the last one is void."""
        self._waiting.clear()

    def hold(self, pid: int, pidfd: int, ticks: int | None = None) -> None:
        """Have a process; the pidfd is ours from here."""
        self.pid, self._pidfd = pid, pidfd
        self.start_ticks = start_ticks(pid) if ticks is None else ticks
        self._loop.add_reader(pidfd, self._dead)

    def send_waiting(self) -> None:
        """Send what was to be sent before there was a process."""
        for name in self._waiting:
            self.send(name)
        self._waiting.clear()

    def send(self, name: str) -> None:
        """Signal it, by the name of signal(7)."""
        if self._pidfd == -1:
            # The fork is on its way: the process gets this as soon as it has a pidfd.
            if name not in self._waiting:
                self._waiting.append(name)
            return
        try:
            signal.pidfd_send_signal(self._pidfd, signal.Signals[name])
        except ProcessLookupError:
            return
        except OSError as error:
            log.error("cannot signal connection=%s signal=%s error=%s", self._name, name, error)

    def kill(self) -> None:
        """SIGKILL it, if there is one."""
        if self._pidfd != -1:
            self.send("SIGKILL")

    def _dead(self) -> None:
        self._loop.remove_reader(self._pidfd)
        # Ours to reap only if the zygote died before it (we are the subreaper).
        with contextlib.suppress(ChildProcessError):
            dead = os.WEXITED | os.WNOHANG
            if os.waitid(os.P_PIDFD, self._pidfd, dead | os.WNOWAIT) is not None:
                kill_group(self.pid)
            status = os.waitid(os.P_PIDFD, self._pidfd, dead)
            if status is not None:
                exited = status.si_code == os.CLD_EXITED
                self.ended(
                    status.si_status if exited else None,
                    None if exited else signal_name(status.si_status),
                )
                return
        self._death_timer = self._loop.call_later(STATUS_WAIT_S, self._untold)

    def _untold(self) -> None:
        self.ended(*ended_how(self._pidfd))

    def ended(self, code: int | None, signal_name: str | None) -> None:
        """Hear how it ended; only the first word on a death counts."""
        if self._pidfd == -1:
            return
        self.close()
        self._on_end(code, signal_name)

    def close(self) -> None:
        """Let go of it; it is left as it is."""
        if self._death_timer is not None:
            self._death_timer.cancel()
            self._death_timer = None
        if self._pidfd != -1:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
