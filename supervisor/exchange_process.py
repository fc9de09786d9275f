"""The simulated exchange as a child process of ``run``, for fleets with a ``[simulator]`` table."""

import os
import select
import subprocess
import sys

from supervisor.errors import FleetError
from supervisor.fleetfile import SimulatorSpec

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 2.0


class SimulatorFailed(FleetError):
    """The simulated exchange did not start; its own words are on stderr."""

    exit_code = 5


class ExchangeProcess:
    """
    A running simulator; a context manager.

    Its lifeline is a pipe that only we hold: it ends when we do, however we end.

    Args:
        spec: Where it listens and what it sends.

    """

    def __init__(self, spec: SimulatorSpec) -> None:
        self._spec = spec
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1

    def __enter__(self) -> "ExchangeProcess":
        """
        Start it and wait until it listens.

        Raises:
            SimulatorFailed: If it ends or says nothing within 10 s.

        """
        spec = self._spec
        theirs, self._lifeline = os.pipe()
        command = _command(spec.host, spec.port, spec.rate, spec.seed, spec.answer_delay_s)
        command += ["--lifeline", str(theirs)]
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
        if not self._listens():
            self.__exit__()
            raise SimulatorFailed(
                f"the simulated exchange does not listen on {spec.host}:{spec.port}; "
                "its reason is above; choose another [simulator] port"
            )
        return self

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], START_TIMEOUT_S)
        return bool(readable) and self._process.stdout.readline().startswith(b"LISTENING")

    def __exit__(self, *_exception: object) -> None:
        os.close(self._lifeline)
        process = self._process
        if process is None:
            return
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def simulate(host: str, port: int, rate: float, seed: int, answer_delay_s: float) -> int:
    """Become the simulated exchange; never returns."""
    os.execv(sys.executable, _command(host, port, rate, seed, answer_delay_s))


def _command(host: str, port: int, rate: float, seed: int, answer_delay_s: float) -> list[str]:
    command = [sys.executable, "-P", "-m", "supervisor.simulator"]
    command += ["--host", host, "--port", str(port), "--rate", str(rate)]
    return [*command, "--seed", str(seed), "--answer-delay", str(answer_delay_s)]
