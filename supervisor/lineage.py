"""Lineage: which process of a connection speaks, over which session, and whether numbers go on.

Pure. Sequence numbers continue over incarnations, but not over a fleet that ended and was run
anew. That is told from three facts together with time: every stamp is CLOCK_MONOTONIC of one host,
so what is older than something already seen is late or double, and never a new beginning.
"""

from dataclasses import dataclass

from supervisor.items import Message

UNKNOWN = -1  # stretch


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
        stretch: What comes after it carries this number, as ``Message.stretch``.

    """

    seq: int
    at_ns: int
    epoch: int = 0
    pid: int = 0
    session: int = 0
    connected: bool = False
    hello: bool = False
    state_seq: int = 0
    stretch: int = 0


class Lineage:
    """
    One connection's processes and sessions, as far as they were noticed.

    A message tells its session by its stretch, a head by its number too. Whichever comes first is
    marked: a message may come from the journal long before a head, and a session may bring nothing.

    Attributes:
        epoch: Incarnation of the last message delivered or session noticed; 0 before any.
        stretch: Of the same; ``UNKNOWN`` before any.

    """

    __slots__ = ("_newest_ns", "_pid", "_pid_epoch", "_session", "epoch", "stretch")

    def __init__(self) -> None:
        self.epoch, self.stretch = 0, UNKNOWN
        self._session = 0  # 0: known by its stretch alone
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
        self.epoch, self.stretch, self._session = epoch, UNKNOWN, 0
        self._pid = self._pid_epoch = 0

    def takes_message(self, message: Message) -> bool:
        """
        Go over to the session of a message; return whether that is to be marked.

        The message must be ahead of all that were taken.
        """
        is_known = message.epoch == self.epoch and message.stretch == self.stretch
        if is_known or message.epoch < self.epoch:
            return False
        marked = self._differs(message.epoch, message.stretch)
        self.epoch, self.stretch, self._session = message.epoch, message.stretch, 0
        return marked

    def takes_head(self, head: Head) -> bool:
        """Go over to the process and session of a head; return whether that is to be marked."""
        if head.pid:
            self._pid, self._pid_epoch = head.pid, head.epoch
        if not head.connected or head.at_ns < self._newest_ns or head.epoch < self.epoch:
            return False
        if self._session and head.epoch == self.epoch:
            marked = head.session != self._session
        else:
            marked = self._differs(head.epoch, head.stretch)
        self.epoch, self.stretch, self._session = head.epoch, head.stretch, head.session
        return marked

    def _differs(self, epoch: int, stretch: int) -> bool:
        if epoch != self.epoch:
            return self.epoch != 0
        return self.stretch not in (UNKNOWN, stretch)
