"""Auditor: follows every journal beside the subscriber, to know what workers have taken.

It reads what the subscriber repairs from, but by itself, record by record, from the first on: what
is overwritten or given out twice is seen here.
"""

import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

from chaos.consumer import mark_of
from shm.errors import SegmentError
from shm.journal_reader import JournalReader
from supervisor.repairs import message_of

POLL_S = 0.05


class Tail:
    """The journal of one connection, over all files that take its place."""

    def __init__(self, shm_dir, name):
        self._shm_dir, self.name = shm_dir, name
        self._reader = JournalReader.open(shm_dir, name)
        self._follower = self._reader.follower(0)
        self.lapped = 0

    def poll(self):
        """Return the messages since the last look."""
        replaced = self._reader.replaced()
        frames = self._follower.poll()
        if replaced:  # by now everything that its last writer wrote is read
            frames += self._next(frames[-1][0] if frames else self._follower.seq)
        return [message_of(self.name, frame, repaired=True) for _seq, frame in frames]

    def _next(self, after):
        try:
            fresh = JournalReader.open(self._shm_dir, self.name)
        except (FileNotFoundError, SegmentError):  # the fleet has ended
            return []
        self._reader.close()
        self.lapped += self._follower.lapped
        self._reader, self._follower = fresh, fresh.follower(after)
        return self._follower.poll()

    def close(self):
        self.lapped += self._follower.lapped
        self._reader.close()


class Auditor(threading.Thread):
    """
    What is in the journals, once ``end`` was called all of it.

    Attributes:
        taken: By connection, every message, as ``chaos.consumer.mark_of`` tells it.
        lapped: How often a journal came around before it was read; then it cannot tell.
        failure: What ended it before its time.

    """

    def __init__(self, shm_dir, names):
        shm_dir = Path(shm_dir)
        super().__init__(name="auditor", daemon=True)
        self.taken = defaultdict(Counter)
        self.failure, self.lapped = None, 0
        self._tails = [Tail(shm_dir, name) for name in names]
        self._ended = threading.Event()

    def end(self):
        """Read the rest; the workers must have ended."""
        self._ended.set()
        self.join()

    def run(self):
        try:
            ended = False
            while not ended:
                ended = self._ended.wait(POLL_S)
                for tail in self._tails:
                    self._look(tail)
                    time.sleep(0)  # the subscriber has its turn
        except Exception as error:  # told by the account
            self.failure = repr(error)
        for tail in self._tails:
            tail.close()
            self.lapped += tail.lapped

    def _look(self, tail):
        for message in tail.poll():
            self.taken[tail.name][mark_of(message)] += 1
