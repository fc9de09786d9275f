"""Sequencer: puts one connection's messages in order, finds what is missing and says so.

Pure. Facts are messages from the wire, heads (what the last number is) and answers of the journal;
results are items to deliver and at most one request to look into the journal, which must be
answered before the next fact. What is delivered grows by one from number to number; whatever is
left out is covered by exactly one gap. ``supervisor/topic_sequencer.py`` is for subscribers that
want some topics only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from supervisor.items import LOST, OVERRUN, Gap, GapCause, Message, SessionChange
from supervisor.lineage import Head, Lineage


class Join(Enum):
    """What comes before the first message from the wire."""

    LIVE = "live"  # nothing
    LAST_VALUE = "last_value"  # the last message of each topic, from the journal
    REPLAY = "replay"  # what the journal has


@dataclass(frozen=True, slots=True)
class Look:
    """Wanted: what the journal has of these numbers, both inclusive."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Found:
    """
    What the journal had.

    Attributes:
        messages: Wanted ones among those looked for, in order.
        holes: Ranges of numbers that it does not have, in order.
        oldest: The oldest number that it has; 0 without a journal.

    """

    messages: Sequence[Message]
    holes: Sequence[tuple[int, int]]
    oldest: int


Action = Message | Gap | SessionChange | Look
Actions = list[Action]


def last_of_topics(messages: Sequence[Message]) -> list[Message]:
    """Return the last message of each topic, in order."""
    last = {message.topic: message for message in messages}
    return sorted(last.values(), key=lambda message: message.seq)


class Sequencer:
    """
    One connection, all topics.

    Args:
        connection: Its name.
        join: What is wanted of the time before the first message from the wire.
        since: The last number already known: what came after it is wanted too.

    Attributes:
        expected: The next number; 0 before the first is known.
        turns: Empty: topics do not matter.
        duplicates: Messages that came twice, or after they had been told to be missing.
        resyncs: How often numbers began anew.

    """

    def __init__(self, connection: str, join: Join = Join.LIVE, since: int | None = None) -> None:
        self.connection, self._join = connection, join
        self.expected = 0 if since is None else since + 1
        self.turns: dict[str, int] = {}
        self.duplicates = self.resyncs = 0
        self._lineage = Lineage()
        self._look: Look | None = None
        self._held: Message | Head | None = None

    @property
    def epoch(self) -> int:
        """The incarnation whose messages continue without more ado."""
        return self._lineage.epoch

    @property
    def stretch(self) -> int:
        """The stretch of it whose messages do."""
        return self._lineage.stretch

    def accept_run(self, run: Sequence[Message]) -> None:
        """Take messages in turn, of this epoch, that were delivered without asking."""
        last = run[-1]
        self.expected = last.seq + 1
        self._lineage.note(last.monotonic_ns)

    # Facts -----------------------------------------------------------------------------------

    def message(self, message: Message) -> Actions:
        """Take a message from the wire."""
        actions: Actions = []
        if self._is_anew(message.epoch, message.seq, message.monotonic_ns):
            actions = self._begin_anew(message.epoch)
        if not self.expected:
            return self._begin(message.seq - 1, message)
        if message.seq < self.expected:
            self.duplicates += 1
            return actions
        if message.seq > self.expected:
            return actions + self._ask(message.seq - 1, message)
        return actions + self._deliver(message)

    def head(self, head: Head) -> Actions:
        """Take a state frame; those of a connection come in order with its messages."""
        actions = self._begins_with(head)
        if not self.expected:
            wanted = head.epoch or self._join is not Join.LIVE
            return self._begin(head.seq, head) if wanted and not head.hello else self._mark(head)
        if head.seq >= self.expected:
            return actions + self._ask(head.seq, head)
        return actions + self._mark(head)

    def found(self, found: Found) -> Actions:
        """Take what the journal had of the last look."""
        look, held = self._look, self._held
        assert look is not None, "an answer that nobody asked for"
        self._look = self._held = None
        actions: Actions = []
        if self.expected:
            actions = self._fill(look, found)
        elif self._join is Join.LAST_VALUE:
            for message in last_of_topics(found.messages):
                actions += self._deliver(message)
        elif found.messages:
            actions = self._fill(Look(found.messages[0].seq, look.last), found)
        self.expected = look.last + 1
        if isinstance(held, Message):
            return actions + self.message(held)
        return actions + self._mark(held) if held is not None else actions

    def skip(self, before: int, head: Head | None = None) -> Actions:
        """
        Leave out what is not delivered yet of the numbers below ``before``.

        Args:
            before: The first number that is not left out.
            head: The last one told among them. It is not taken afterwards: what it says is
                behind then, which would be a new beginning.

        """
        actions = [] if head is None else self._begins_with(head)
        if 0 < self.expected < before:
            actions.append(self._gap(self.expected, before - 1, OVERRUN))
        self.expected = max(self.expected, before)
        return actions if head is None else actions + self._mark(head)

    # Inside ----------------------------------------------------------------------------------

    def _is_anew(self, epoch: int, seq: int, at_ns: int, pid: int = 0) -> bool:
        goes_back = seq < self.expected
        return self.expected > 0 and self._lineage.is_anew(
            epoch, at_ns, goes_back=goes_back, pid=pid
        )

    def _begins_with(self, head: Head) -> Actions:
        """Begin anew if a state frame says so."""
        going_back = head.seq + 1 if not head.hello else self.expected
        if self._is_anew(head.epoch, going_back, head.at_ns, head.pid):
            return self._begin_anew(head.epoch)
        return []

    def _begin_anew(self, epoch: int) -> Actions:
        """Count from 1 again: a connection that begins has sent nothing before that."""
        self.resyncs += 1
        self.expected = 1
        self._lineage.begin_anew(epoch)
        return [SessionChange(self.connection, epoch)]

    def _begin(self, before: int, fact: Message | Head) -> Actions:
        """Take the first number for granted; before it comes what was wanted at joining."""
        if self._join is not Join.LIVE and before > 0:
            self._look, self._held = Look(1, before), fact
            return [self._look]
        self.expected = before + 1
        return self.message(fact) if isinstance(fact, Message) else self._mark(fact)

    def _ask(self, last: int, held: Message | Head) -> Actions:
        self._look, self._held = Look(self.expected, last), held
        return [self._look]

    def _fill(self, look: Look, found: Found) -> Actions:
        actions: Actions = []
        at = look.first
        for message in found.messages:
            if not at <= message.seq <= look.last:
                continue
            if message.seq > at:
                actions.append(self._gap(at, message.seq - 1, cause_of(at, found.oldest)))
            actions += self._deliver(message)
            at = message.seq + 1
        if at <= look.last:
            actions.append(self._gap(at, look.last, cause_of(at, found.oldest)))
        return actions

    def _deliver(self, message: Message) -> Actions:
        self.expected = message.seq + 1
        marked = self._lineage.takes_message(message)
        self._lineage.note(message.monotonic_ns)
        if marked:
            return [SessionChange(self.connection, message.epoch), message]
        return [message]

    def _mark(self, head: Head) -> Actions:
        marked = self._lineage.takes_head(head)
        self._lineage.note(head.at_ns)
        return [SessionChange(self.connection, head.epoch)] if marked else []

    def _gap(self, first: int, last: int, cause: GapCause) -> Gap:
        return Gap(self.connection, self.epoch, first, last, cause, last - first + 1)


def cause_of(first: int, oldest: int) -> GapCause:
    """Return why the journal has not what begins at ``first``: it came around, or never had it."""
    return OVERRUN if first < oldest else LOST
