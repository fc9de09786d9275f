"""Consumer: the subscriber that counts, in a thread, and checks what it is given."""

import threading
import time
import zlib
from collections import Counter, defaultdict

from rotating import number_of

from supervisor.subscriber import Gap, Message, SessionChange, Subscriber


def mark_of(message):
    """Return what tells a message from every other one of its connection."""
    return message.seq, message.epoch, zlib.crc32(message.payload)


class Consumer(threading.Thread):
    """
    Reads a fleet to its end.

    Attributes:
        delivered: By connection, what came, as ``mark_of`` tells it.
        gaps: Every ``Gap``.
        jumps: By connection, how many numbers of the exchange did not come between two messages
            of one session; ``places`` tells where.
        changes: How many ``SessionChange`` items came.
        repaired: How many messages came from a journal since ``begin``.
        wrongs: Breaches of order, in words.
        failure: What ended it, if that was not the fleet.

    """

    def __init__(self, fleet):
        super().__init__(name="consumer", daemon=True)
        self.delivered = defaultdict(Counter)
        self.jumps, self.places = Counter(), defaultdict(list)
        self.gaps, self.wrongs = [], []
        self.changes = self.repaired = 0
        self.failure = None
        self.stats = {}
        self._until_s = 0.0
        self._at, self._number, self._anew = {}, {}, set()
        # From the first message on, whoever published it.
        self._subscriber = Subscriber(fleet, since=0, until_fleet_ends=True)

    def begin(self):
        """Forget what was before the first fault: at joining, everything is repaired."""
        self.changes = self.repaired = 0

    def pause(self, seconds):
        """Read nothing for so long."""
        self._until_s = time.monotonic() + seconds

    def end(self):
        self._subscriber.stop()

    def run(self):
        try:
            with self._subscriber as subscriber:
                for item in subscriber:
                    self._take(item)
                    if self._until_s and time.monotonic() < self._until_s:
                        time.sleep(self._until_s - time.monotonic())
                self.stats = subscriber.stats()
        except Exception as error:  # told by the account
            self.failure = repr(error)

    def _take(self, item):
        name = item.connection
        if isinstance(item, SessionChange):
            self.changes += 1
            self._anew.add(name)
            return
        if isinstance(item, Gap):
            self.gaps.append(item)
            self._follow(name, item.first, item.last)
            return
        assert isinstance(item, Message), item
        self._follow(name, item.seq, item.seq)
        self.delivered[name][mark_of(item)] += 1
        self.repaired += item.repaired
        self._compare(item)

    def _follow(self, name, first, last):
        expected = self._at.get(name, 0) + 1
        if first != expected:
            self.wrongs.append(f"{name}: number {first} where {expected} was due")
        self._at[name] = last

    def _compare(self, message):
        """Hold the exchange's own number against the one before."""
        number, name = number_of(message.payload), message.connection
        if number is None:
            return
        last = self._number.get(name, number - 1)
        self._number[name] = number
        if number <= last:
            self.wrongs.append(f"{name}: the exchange's number {number} after {last}")
        elif number > last + 1 and name not in self._anew:
            self.jumps[name] += number - last - 1
            self.places[name].append(f"{number - last - 1} before seq {message.seq}")
        self._anew.discard(name)
