"""Quiet logging: what the supervisor says never stops it, whatever has become of its stderr.

A pipe that nobody reads blocks its writer and a broken one fails it; supervision must not notice.
So lines go through a bounded queue to one daemon thread, and what does not fit is dropped and
counted. The thread forks nothing and holds no lock of ours: the zygote is exec'd, not forked.
"""

import contextlib
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator

LINES_MAX = 2048
FLUSH_S = 0.5
STDERR = 2


class Mouth:
    """Writes lines to a descriptor without ever blocking or failing its caller."""

    def __init__(self, descriptor: int = STDERR) -> None:
        self._descriptor = descriptor
        self._lines: queue.Queue[str | None] = queue.Queue(LINES_MAX)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="fw-log", daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """Take one line, or count it as dropped if the queue is full."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def close(self, timeout_s: float = FLUSH_S) -> None:
        """Write what is queued, for at most ``timeout_s``."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
            self._thread.join(timeout_s)

    def _write(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the loop's affair
        while (line := self._lines.get()) is not None:
            self._put(line)
            if self._dropped:  # it flows again
                dropped, self._dropped = self._dropped, 0
                self._put(f"{dropped} lines were dropped: stderr did not take them")

    def _put(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        with contextlib.suppress(OSError):  # closed, full or broken: there is nobody to tell
            while data:
                data = data[os.write(self._descriptor, data) :]


class MouthHandler(logging.Handler):
    """Formats a record where it is logged and hands the line over."""

    def __init__(self, mouth: Mouth) -> None:
        super().__init__()
        self._mouth = mouth

    def emit(self, record: logging.LogRecord) -> None:
        """Hand over one line; a record that cannot be formatted is left out."""
        with contextlib.suppress(Exception):
            self._mouth.say(self.format(record))


_mouth: list[Mouth] = []  # the one in use, while there is one


@contextlib.contextmanager
def unstoppable() -> Iterator[None]:
    """Lead the root logger and ``say`` through a ``Mouth``; afterwards as it was."""
    root, mouth = logging.getLogger(), Mouth()
    before = [h for h in root.handlers if type(h) is logging.StreamHandler]
    handler = MouthHandler(mouth)
    if before:
        handler.setFormatter(before[0].formatter)
    for former in before:
        root.removeHandler(former)
    root.addHandler(handler)
    _mouth.append(mouth)
    try:
        yield
    finally:
        _mouth.remove(mouth)
        root.removeHandler(handler)
        for former in before:
            root.addHandler(former)
        mouth.close()


def say(line: str) -> None:
    """Print a line on stderr that is no log record; never blocks while ``unstoppable`` holds."""
    if _mouth:
        _mouth[-1].say(line)
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):  # sys.stderr may be None
        print(line, file=sys.stderr, flush=True)
