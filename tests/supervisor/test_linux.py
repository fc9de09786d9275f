"""What the kernel tells of a process."""

import os
import select
import subprocess
import sys
import time

import pytest

from supervisor.linux import ended_how

KERNEL = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
needs_exit_info = pytest.mark.skipif(KERNEL < (6, 15), reason="PIDFD_INFO_EXIT is of Linux 6.15")


@needs_exit_info
@pytest.mark.parametrize(
    ("ends", "found"),
    [
        ("sys.exit(0)", (0, None)),
        ("sys.exit(77)", (77, None)),
        ("os.kill(os.getpid(), signal.SIGKILL)", (None, "SIGKILL")),
    ],
)
def test_how_a_process_ended_is_known_once_somebody_has_reaped_it(ends, found):
    program = f"import os, signal, sys; input(); {ends}"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
        pidfd = os.pidfd_open(process.pid)
        try:
            assert ended_how(pidfd) == (None, None), "it lives"
            process.stdin.write(b"\n")
            process.stdin.close()
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            assert poll.poll(20_000)
            process.wait()
            deadline = time.monotonic() + 20
            while ended_how(pidfd) == (None, None) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert ended_how(pidfd) == found
        finally:
            os.close(pidfd)


def test_what_is_no_pidfd_tells_nothing():
    reading, writing = os.pipe()
    assert ended_how(reading) == (None, None)
    os.close(reading)
    os.close(writing)
