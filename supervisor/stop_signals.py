"""Stop signals: SIGINT, SIGTERM and SIGHUP are noted from the first moment to the last.

asyncio's handlers live only as long as its loop, and a signal before or after it would leave files
and processes behind. Here a handler only notes; whoever has something to leave off looks.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

log = logging.getLogger("supervisor.stop_signals")

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Other daemons reopen their logs by them. Handled, not ignored: what we exec is born with defaults.
MEANINGLESS = (signal.SIGUSR1, signal.SIGUSR2)


class StopSignals:
    """
    What has been asked by signal; a context manager, to be entered on the main thread.

    Attributes:
        asked: Every stop signal that came, in order.

    """

    def __init__(self) -> None:
        self.asked: list[signal.Signals] = []

    def __enter__(self) -> "StopSignals":
        for number in STOPPING:
            signal.signal(number, self._note)
        for number in MEANINGLESS:
            signal.signal(number, lambda _number, _frame: None)
        return self

    def __exit__(self, *_exception: object) -> None:
        # What is left is the end of the process: nobody shall make a death of it.
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.asked.append(signal.Signals(number))

    @contextlib.contextmanager
    def heard(
        self, loop: asyncio.AbstractEventLoop, on_signal: Callable[[], None]
    ) -> Iterator[None]:
        """Call ``on_signal`` on the loop after each signal, and at once if one came before."""
        ours, kernels = socket.socketpair()
        with ours, kernels:
            for end in (ours, kernels):
                end.setblocking(False)
            signal.set_wakeup_fd(kernels.fileno(), warn_on_full_buffer=False)

            def look() -> None:
                with contextlib.suppress(BlockingIOError):
                    ours.recv(4096)
                on_signal()

            loop.add_reader(ours, look)
            try:
                if self.asked:
                    on_signal()
                yield
            finally:
                loop.remove_reader(ours)
                signal.set_wakeup_fd(-1)
