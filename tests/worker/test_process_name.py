import os
import subprocess
import sys

from worker.process_name import process_name, set_process_name, worker_name


def test_a_worker_is_known_by_the_name_that_it_gives_itself():
    before = process_name(os.getpid())
    try:
        set_process_name(worker_name("a-connection-of-a-long-name"))
        assert process_name(os.getpid()) == worker_name("a-connection-of-a-long-name")
    finally:
        set_process_name(before)


def test_a_process_that_is_gone_has_no_name():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert process_name(process.pid) == ""
