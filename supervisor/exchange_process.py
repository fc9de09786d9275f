"""The simulated exchange as a child process of ``run``, for fleets with a ``[simulator]`` table."""

import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable

import msgspec

from supervisor.errors import FleetError
from supervisor.exchange_spec import SimulatorSpec
from supervisor.exit_codes import CONFIGURATION

log = logging.getLogger("supervisor.exchange_process")

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 1.0
RESTART_NS = 1_000_000_000
POLL_S = 0.1


class SimulatorFailed(FleetError):
    """The simulated exchange did not start; its own words are on stderr."""

    exit_code = CONFIGURATION


class ExchangeProcess:
    """
    A running simulator; a context manager.

    Its lifeline is a pipe that only we hold: it ends when we do, however we end.

    Args:
        spec: Where it listens and what it sends.
        stop_asked: Tells that waiting for it is of no use any more.

    """

    def __init__(self, spec: SimulatorSpec, stop_asked: Callable[[], bool] = lambda: False) -> None:
        self._spec, self._stop_asked = spec, stop_asked
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._restart_ns: int | None = None

    @property
    def pid(self) -> int:
        """Its process, 0 if there is none."""
        return self._process.pid if self._process is not None else 0

    def __enter__(self) -> "ExchangeProcess":
        """
        Start it and wait until it listens.

        Raises:
            SimulatorFailed: If it ends or says nothing within 10 s.

        """
        spec = self._spec
        try:
            self._start()
        except OSError as error:
            self.__exit__()
            raise SimulatorFailed(f"the simulated exchange cannot be started: {error}") from error
        if not self._listens():
            self.__exit__()
            raise SimulatorFailed(
                f"the simulated exchange does not listen on {spec.host}:{spec.port}; "
                "its reason is above; choose another [simulator] port"
            )
        return self

    def _start(self) -> None:
        theirs, self._lifeline = os.pipe()
        command = [*_command(self._spec), str(theirs)]
        try:
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,  # the terminal's Ctrl-C is the supervisor's alone
            )
        finally:
            os.close(theirs)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            readable, _, _ = select.select([self._process.stdout], [], [], POLL_S)
            if readable:
                return self._process.stdout.readline().startswith(b"LISTENING")
            if self._stop_asked():
                return True  # whether it does is of no interest any more
        return False

    def look(self, now_ns: int) -> None:
        """Notice its death and start another after 1 s; never blocks."""
        if self._restart_ns is not None:
            if now_ns >= self._restart_ns:
                self._restart(now_ns)
        elif self._process is None or self._process.poll() is not None:
            code = self._process.returncode if self._process is not None else None
            log.error("the simulated exchange ended code=%s; another starts in 1 s", code)
            self._restart_ns = now_ns + RESTART_NS

    def _restart(self, now_ns: int) -> None:
        self._restart_ns = None
        self.__exit__()
        try:
            self._start()
        except OSError as error:
            log.error("the simulated exchange cannot be started: %s", error)
            self._restart_ns = now_ns + RESTART_NS
        else:
            log.info("the simulated exchange is started again pid=%d", self.pid)

    def __exit__(self, *_exception: object) -> None:
        if self._lifeline != -1:
            os.close(self._lifeline)
            self._lifeline = -1
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def simulate(spec: SimulatorSpec) -> int:
    """Become the simulated exchange; never returns."""
    os.execv(sys.executable, _command(spec))


def _command(spec: SimulatorSpec) -> list[str]:
    said = msgspec.json.encode(spec).decode()
    return [sys.executable, "-P", "-m", "supervisor.simulator", said]
