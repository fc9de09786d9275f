"""Targets that break the contract: a runner that does not tell proves nothing."""

import mmap
import os

from fuzz.target import Target


class Crash(Target):
    """Touches what was cut off: SIGBUS."""

    def run(self, rng):
        path = self.folder / "cut"
        path.write_bytes(bytes(8192))
        with path.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), 8192)
            os.truncate(path, 0)
            return str(memory[0])


class Unnamed(Target):
    """Raises what nobody has named, in the fourth case."""

    def __init__(self, folder):
        super().__init__(folder)
        self._left = 3

    def run(self, rng):
        self._left -= 1
        if self._left < 0:
            raise IndexError("out of something")
        return "fine"


class Endless(Target):
    """Never ends."""

    def run(self, rng):
        while True:
            rng.random()
