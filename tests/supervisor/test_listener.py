"""Listening sockets at paths: replaced atomically, never stolen from anybody else."""

import socket
import stat

import pytest

from supervisor.errors import RuntimeDirectoryRefused
from supervisor.listener import listen


def connect(path):
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    return client


def test_the_socket_is_private_and_accepts(tmp_path):
    path = tmp_path / "a.sock"
    with listen(path) as listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with connect(path):
            listener.accept()[0].close()


def test_a_stale_socket_file_is_replaced(tmp_path):
    path = tmp_path / "a.sock"
    listen(path).close()
    with listen(path), connect(path):
        pass


def test_a_file_that_is_no_socket_is_left_as_it_is(tmp_path):
    path = tmp_path / "a.sock"
    path.write_text("precious")
    with pytest.raises(RuntimeDirectoryRefused, match=r"a\.sock: it is not a socket"):
        listen(path)
    assert path.read_text() == "precious"


def test_a_path_that_is_too_long_leaves_nothing_behind(tmp_path):
    path = tmp_path / ("x" * 120)
    with pytest.raises(RuntimeDirectoryRefused, match="at most 107"):
        listen(path)
    assert list(tmp_path.iterdir()) == []


def test_connects_wait_while_nobody_accepts(tmp_path):
    """A restarting worker's subscribers stay in the kernel's queue."""
    path = tmp_path / "a.sock"
    with listen(path) as listener:
        clients = [connect(path) for _ in range(100)]
        for client in clients:
            listener.accept()[0].close()
            client.close()
