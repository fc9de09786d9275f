import os
import socket
import subprocess
import sys

from worker.announcement import EventKind
from worker.slow import CALM_NS, LOOK_NS, PIDS_MAX, SlowWatch, stuck_peers

SECOND_NS = 1_000_000_000


def test_an_episode_is_told_at_its_begin_and_at_its_end():
    stuck = {7}
    watch = SlowWatch(lambda: set(stuck))
    assert watch.look(5, 0) is None
    begin = watch.full(10, 0)
    assert (begin.kind, begin.detail) == (EventKind.SLOW, {"first": 10, "pids": [7]})
    assert watch.full(20, 1) is None
    assert watch.look(30, LOOK_NS - 1) is None
    stuck.add(8)
    assert watch.look(40, 5 * SECOND_NS) is None
    stuck.clear()
    assert watch.look(50, 5 * SECOND_NS + LOOK_NS) is None
    assert watch.look(60, 5 * SECOND_NS + CALM_NS - 1) is None
    end = watch.look(70, 5 * SECOND_NS + CALM_NS + LOOK_NS)
    assert end.detail == {"first": 10, "last": 50, "times": 2, "duration_s": 5.0, "pids": [7, 8]}
    assert not watch.active
    assert watch.look(80, 60 * SECOND_NS) is None
    assert watch.full(90, 60 * SECOND_NS).detail["first"] == 90


def test_a_queue_that_is_full_again_and_again_is_one_episode():
    watch = SlowWatch(set)
    told = [watch.full(n, n * SECOND_NS // 2) for n in range(20)]
    told += [watch.look(n, n * SECOND_NS // 2 + LOOK_NS) for n in range(20)]
    assert [said is not None for said in told].count(True) == 1


def test_no_more_processes_are_told_than_an_event_holds():
    watch = SlowWatch(lambda: {0, *range(1, 100)})
    assert watch.full(1, 0).detail["pids"] == list(range(1, PIDS_MAX + 1))


PEER = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); input()"


def test_the_process_that_does_not_read_is_found_and_no_other(tmp_path):
    path = str(tmp_path / "s")
    command = [sys.executable, "-c", PEER, path]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with (
            subprocess.Popen(command, stdin=subprocess.PIPE) as stalled,
            subprocess.Popen(command, stdin=subprocess.PIPE) as idle,
        ):
            links = [listener.accept()[0] for _ in range(2)]
            assert stuck_peers(path) == set()
            for link in links:
                raw = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4)
                if int.from_bytes(raw, sys.byteorder) == stalled.pid:
                    link.setblocking(False)
                    while True:
                        try:
                            link.send(bytes(4096))
                        except BlockingIOError:
                            break
            assert stuck_peers(path) == {stalled.pid}
            assert stuck_peers(path + "x") == set()
            before = len(os.listdir("/proc/self/fd"))
            stuck_peers(path)
            assert len(os.listdir("/proc/self/fd")) == before
            stalled.communicate(b"\n")
            idle.communicate(b"\n")
            assert stuck_peers(path) == set()
            for link in links:
                link.close()
