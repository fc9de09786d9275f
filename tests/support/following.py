"""A trading process's subscriber, and what it missed."""

import threading

from fleet import PATIENCE_S, wait_for

from supervisor.subscriber import Gap, Message, SessionChange, Subscriber


class Follower(threading.Thread):
    """A subscriber as a thread that keeps what it is given."""

    def __init__(self, fleet, names):
        super().__init__(daemon=True)
        self.items = []
        self._fleet, self._names, self._ending = fleet, names, threading.Event()
        self._subscriber = Subscriber(fleet.name, *names)
        self.start()
        wait_for(lambda: set(names) <= self._heads().keys(), "messages of each")

    def run(self):
        while not self._ending.is_set():
            item = self._subscriber.recv(0.1)
            if item is not None:
                self.items.append(item)

    def _heads(self):
        return {i.connection: i.seq for i in list(self.items) if isinstance(i, Message)}

    def wait_more(self, count):
        """Wait until so many more have come."""
        wanted = len(self.items) + count
        wait_for(lambda: len(self.items) >= wanted, f"{count} messages more")

    def assert_nothing_lost(self):
        """Wait for what is published by now: every number once, of the same sessions."""
        published = {name: self._fleet.rows()[name]["messages"] for name in self._names}
        wait_for(
            lambda: (heads := self._heads()) and all(heads[n] >= published[n] for n in published),
            "what is published",
        )
        items = list(self.items)
        assert [i for i in items if isinstance(i, Gap | SessionChange)] == []
        for name in self._names:
            seqs = [item.seq for item in items if item.connection == name]
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), name

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self._ending.set()
        self.join(PATIENCE_S)
        self._subscriber.close()
