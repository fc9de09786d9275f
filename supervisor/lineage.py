"""Lineage: which process of a connection speaks, over which session, and whether numbers go on.

Pure. Sequence numbers continue over incarnations, but not over a fleet that ended and was run
anew. That is told from three facts together with time: every stamp is CLOCK_MONOTONIC of one host,
so what is older than something already seen is late or double, and never a new beginning.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Head:
    """
    What a state frame says, or a look into shared memory.

    Attributes:
        seq: Number of the last data message sent before it.
        at_ns: When it was so, CLOCK_MONOTONIC.
        epoch: Incarnation; 0 if not known.
        pid: Of the worker; 0 if not known.
        session: Number of its session with the exchange, 0 if not known.
        connected: Whether that session can give data.
        hello: Whether it is the greeting of a new attachment, which may be 100 ms old and precedes
            the subscription.
        state_seq: Its number among the state frames of its epoch; 0 if it is none.

    """

    seq: int
    at_ns: int
    epoch: int = 0
    pid: int = 0
    session: int = 0
    connected: bool = False
    hello: bool = False
    state_seq: int = 0


class Lineage:
    """
    One connection's processes and sessions, as far as they were noticed.

    Attributes:
        epoch: Incarnation of the last message delivered or session noticed; 0 before any.

    """

    __slots__ = ("_newest_ns", "_pid", "_pid_epoch", "_session", "epoch")

    def __init__(self) -> None:
        self.epoch = 0
        self._session = 0
        self._pid = self._pid_epoch = 0
        self._newest_ns = 0

    def note(self, at_ns: int) -> None:
        """Something of this stamp was seen."""
        if at_ns > self._newest_ns:
            self._newest_ns = at_ns

    def is_anew(self, epoch: int, at_ns: int, *, goes_back: bool, pid: int = 0) -> bool:
        """
        Return whether this is no continuation of what was seen, but another beginning.

        Args:
            epoch: Incarnation that says it; 0 if not known.
            at_ns: Its stamp.
            goes_back: Whether its number is one that was passed already.
            pid: Of the process, if known.

        """
        if at_ns <= self._newest_ns or not epoch:
            return False
        older = epoch < max(self.epoch, self._pid_epoch)
        another = pid != self._pid and epoch == self._pid_epoch and bool(pid and self._pid)
        return goes_back or older or another

    def begin_anew(self, epoch: int) -> None:
        """Take an incarnation for the first of another beginning; its session counts as marked."""
        self.epoch, self._session = epoch, 0
        self._pid = self._pid_epoch = 0

    def takes_epoch(self, epoch: int) -> bool:
        """Go over to the incarnation of a message; return whether that is to be marked."""
        if epoch <= self.epoch:
            return False
        marked = self.epoch != 0
        self.epoch, self._session = epoch, 0
        return marked

    def takes_head(self, head: Head) -> bool:
        """Go over to the process and session of a head; return whether that is to be marked."""
        if head.pid:
            self._pid, self._pid_epoch = head.pid, head.epoch
        if not head.connected or head.at_ns < self._newest_ns or head.epoch < self.epoch:
            return False
        before = self.epoch, self._session
        self.epoch, self._session = head.epoch, head.session
        known = before[0] != 0 and (before[1] != 0 or before[0] != head.epoch)
        return known and before != (head.epoch, head.session)
