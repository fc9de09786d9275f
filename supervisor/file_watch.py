"""File watch: whether somebody wrote to or cut a file of a directory, by inotify(7).

Reading a mapping beyond the end of a file that was cut is SIGBUS. To ask for the size of every file
before every look costs more than the look. Workers write by mapping, which inotify does not tell,
so it is silent unless a segment is made, or somebody lays hands on one.
"""

import ctypes
import fcntl
import os
import struct
import termios
from pathlib import Path

IN_MODIFY, IN_IGNORED = 0x2, 0x8000
EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
NOTHING = bytes(4)
READ_BYTES = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


class FileWatch:
    """
    A watch of the files of a directory. It wakes nobody: ask before you look.

    Args:
        directory: The directory.

    """

    def __init__(self, directory: Path) -> None:
        self._descriptor = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor == -1:  # as many as the user may have (max_user_instances)
            return
        path = os.fsencode(directory)
        if _libc.inotify_add_watch(self._descriptor, path, IN_MODIFY) == -1:
            self.close()

    def disturbed(self) -> bool:
        """Return whether a file may have been cut since the last time; if unknown, it may."""
        if self._descriptor == -1:
            return True
        if fcntl.ioctl(self._descriptor, termios.FIONREAD, NOTHING) == NOTHING:
            return False
        self._read()
        return True

    def _read(self) -> None:
        events, at = os.read(self._descriptor, READ_BYTES), 0
        while at < len(events):
            _watch, mask, _cookie, length = EVENT.unpack_from(events, at)
            at += EVENT.size + length
            if mask & IN_IGNORED:  # the directory is gone
                self.close()

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor != -1:
            os.close(self._descriptor)
            self._descriptor = -1
