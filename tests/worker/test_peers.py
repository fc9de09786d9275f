import os
import socket
import subprocess
import sys

from worker.peers import count, cut, stuck

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
            assert stuck(path) == {}
            assert (count(path), count(path + "x")) == (2, 0)
            for link in links:
                raw = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4)
                if int.from_bytes(raw, sys.byteorder) == stalled.pid:
                    link.setblocking(False)
                    while True:
                        try:
                            link.send(bytes(4096))
                        except BlockingIOError:
                            break
            assert list(stuck(path).values()) == [stalled.pid]
            assert stuck(path + "x") == {}
            before = len(os.listdir("/proc/self/fd"))
            stuck(path)
            assert len(os.listdir("/proc/self/fd")) == before
            assert cut(path, {0}) == set()
            assert cut(path, set(stuck(path))) == {stalled.pid}
            assert stuck(path) == {}
            stalled.communicate(b"\n")
            idle.communicate(b"\n")
            assert stuck(path) == {}
            for link in links:
                link.close()
            assert count(path) == 0
