"""Topic sequencer: what ``supervisor/sequencer.py`` does, for who wants some topics only.

Pure. Numbers of the connection jump by nature here, so a loss is told from the numbers of each
topic, which begin at 1 in every incarnation. At the end of a topic nothing follows that could tell:
there the state frames help. They are numbered too: where one of them is missing, messages may be,
and where another incarnation or another attachment speaks, the end of the former may be. Then the
journal is searched up to the head.

In order is each topic. A message from the journal may come after a later one of another topic.
"""

from collections.abc import Sequence

from supervisor.items import OVERRUN, Gap, GapCause, Message, SessionChange
from supervisor.lineage import Head, Lineage
from supervisor.sequencer import Actions, Found, Join, Look, cause_of, last_of_topics


class TopicSequencer:
    """
    One connection, some topics.

    Args:
        connection: Its name.
        join: What is wanted of the time before the first message from the wire.
        since: The last number already known: what came after it is wanted too.

    Attributes:
        turns: The next number of each topic in this epoch, by topic.
        duplicates: Messages that came twice, or after they had been told to be missing.
        resyncs: How often numbers began anew.

    """

    expected = -1  # no message is in turn by its number of the connection alone

    def __init__(self, connection: str, join: Join = Join.LIVE, since: int | None = None) -> None:
        self.connection, self._join, self._since = connection, join, since
        self.duplicates = self.resyncs = 0
        self._lineage = Lineage()
        self._epoch = 0  # whose numbers of topics count; 0 before the first is known
        self._from_one = False  # it began while we listened
        self._from_start = False  # the connection did
        self.turns: dict[str, int] = {}
        self._seqs: dict[str, int] = {}  # of the last message of each topic
        self._reached = 0  # of the connection: the greatest number heard of
        self._epoch_after = 0  # where the epoch began
        self._sure = 0  # the head of the last state frame
        self._state_seq = 0  # and its number
        self._look: Look | None = None
        self._held: Message | Head | None = None
        self._oldest = 0  # in the journal, while an answer is worked on

    @property
    def epoch(self) -> int:
        """The incarnation whose messages continue without more ado."""
        return self._epoch

    @property
    def stretch(self) -> int:
        """The stretch of it whose messages do."""
        return self._lineage.stretch

    def accept_run(self, run: Sequence[Message]) -> None:
        """Take messages in turn, of this epoch, that were delivered without asking."""
        for message in run:
            self._seqs[message.topic] = message.seq
        last = run[-1]
        self._reached = max(self._reached, last.seq)
        self._lineage.note(last.monotonic_ns)

    # Facts -----------------------------------------------------------------------------------

    def message(self, message: Message) -> Actions:
        """Take a message from the wire."""
        actions: Actions = []
        if self._is_anew(message.epoch, message.seq, message.monotonic_ns):
            actions = self._begin_anew(message.epoch)
        if not self._epoch:
            return self._begin(message.seq - 1, message)
        if message.epoch > self._epoch:
            first = self._reached + 1
        else:
            last, seq = self._last_of(message)
            first = seq + 1 if message.topic_seq > last + 1 else message.seq
        if first < message.seq:
            return actions + self._ask(first, message.seq - 1, message)
        return actions + self._take(message)

    def head(self, head: Head) -> Actions:
        """Take a state frame; those of a connection come in order with its messages."""
        actions = self._begins_with(head)
        if not self._epoch:
            wanted = head.epoch or self._since is not None or self._join is not Join.LIVE
            return self._begin(head.seq, head) if wanted and not head.hello else self._mark(head)
        first = self._to_search_from(head)
        if first <= head.seq:
            return actions + self._ask(first, head.seq, head)
        return actions + self._settle(head)

    def found(self, found: Found) -> Actions:
        """Take what the journal had of the last look."""
        look, held = self._look, self._held
        assert look is not None, "an answer that nobody asked for"
        self._look = self._held = None
        self._oldest = found.oldest
        exact = isinstance(held, Message) and held.epoch == self._epoch
        if not self._epoch and self._since is None and self._join is Join.LAST_VALUE:
            actions = self._recall(found)
        else:
            replay = not self._epoch and self._since is None
            holes = [] if exact or replay else found.holes
            actions = self._pour(found, holes)
        if not exact:
            self._reached = max(self._reached, look.last)
        assert held is not None
        actions += self._take(held) if isinstance(held, Message) else self._settle(held)
        self._oldest = 0
        return actions

    def skip(self, before: int, head: Head | None = None) -> Actions:
        """Leave out what is not delivered yet below ``before``, as ``Sequencer.skip``."""
        actions = [] if head is None else self._begins_with(head)
        first, self._reached = self._reached + 1, max(self._reached, before - 1)
        if self._epoch and first < before:
            actions.append(self._gap(first, before - 1, OVERRUN, None))
        if head is not None:
            actions += self._settle(head)
        self.turns.clear()
        self._from_one = False
        return actions

    # Inside ----------------------------------------------------------------------------------

    def _is_anew(self, epoch: int, seq: int, at_ns: int, pid: int = 0) -> bool:
        return self._epoch > 0 and self._lineage.is_anew(
            epoch, at_ns, goes_back=seq <= self._reached, pid=pid
        )

    def _begins_with(self, head: Head) -> Actions:
        """Begin anew if a state frame says so."""
        going_back = self._reached + 1 if head.hello else head.seq + 1
        if self._is_anew(head.epoch, going_back, head.at_ns, head.pid):
            return self._begin_anew(head.epoch)
        return []

    def _begin_anew(self, epoch: int) -> Actions:
        self.resyncs += 1
        self._reached = self._sure = 0
        self._go_over(epoch)
        self._lineage.begin_anew(epoch)
        return [SessionChange(self.connection, epoch)]

    def _begin(self, before: int, fact: Message | Head) -> Actions:
        """Take the first number for granted; before it comes what was wanted at joining."""
        actions: Actions = []
        first = 1 if self._join is not Join.LIVE else before + 1
        if self._since is not None and self._since <= before:
            first = self._since + 1
        elif self._since is not None:
            actions, first = self._begin_anew(fact.epoch), 1
        self._reached = first - 1
        self._from_start = before == 0 or self._since == 0
        if first <= before:
            return actions + self._ask(first, before, fact)
        return actions + (self._take(fact) if isinstance(fact, Message) else self._settle(fact))

    def _to_search_from(self, head: Head) -> int:
        """Return the first number that may be missing before a head."""
        if head.epoch > self._epoch or head.hello or not head.state_seq:
            return self._reached + 1
        if self._state_seq and head.state_seq > self._state_seq + 1:
            return self._sure + 1
        return head.seq + 1

    def _ask(self, first: int, last: int, held: Message | Head) -> Actions:
        self._look, self._held = Look(first, last), held
        return [self._look]

    def _go_over(self, epoch: int) -> None:
        """Count the topics of another incarnation."""
        self._from_one = self._epoch != 0 or self._from_start
        self._epoch = epoch
        self.turns.clear()
        self._epoch_after = self._reached
        self._state_seq = 0

    def _last_of(self, message: Message) -> tuple[int, int]:
        """Return number and seq of the message before in its topic, as far as we care."""
        topic = message.topic
        if topic in self.turns:
            return self.turns[topic] - 1, self._seqs[topic]
        return (0, self._epoch_after) if self._from_one else (message.topic_seq - 1, 0)

    def _take(self, message: Message) -> Actions:
        """Deliver a message unless it is known; what is still missing before it is a gap."""
        if message.epoch < self._epoch:
            self.duplicates += 1
            return []
        if message.epoch > self._epoch:
            self._go_over(message.epoch)
        last, seq = self._last_of(message)
        if message.topic_seq <= last:
            self.duplicates += not message.repaired  # a search finds what is known, too
            return []
        actions: Actions = []
        missing = message.topic_seq - last - 1
        if missing:
            cause = cause_of(seq + 1, self._oldest)
            actions.append(self._gap(seq + 1, message.seq - 1, cause, missing, message.topic))
        return actions + self._deliver(message)

    def _deliver(self, message: Message) -> Actions:
        self.turns[message.topic] = message.topic_seq + 1
        self._seqs[message.topic] = message.seq
        # One that comes after a later one of another topic may be of a session before.
        marked = message.seq > self._reached and self._lineage.takes_message(message)
        self._reached = max(self._reached, message.seq)
        self._lineage.note(message.monotonic_ns)
        if marked:
            return [SessionChange(self.connection, message.epoch), message]
        return [message]

    def _pour(self, found: Found, holes: Sequence[tuple[int, int]]) -> Actions:
        """Take messages in order, and holes between them for what may be missing."""
        actions: Actions = []
        rest = list(holes)
        for message in found.messages:
            while rest and rest[0][0] < message.seq:
                actions += self._hole(*rest.pop(0))
            actions += self._take(message)
        for hole in rest:
            actions += self._hole(*hole)
        return actions

    def _hole(self, first: int, last: int) -> Actions:
        return [self._gap(first, last, cause_of(first, self._oldest), None)]

    def _recall(self, found: Found) -> Actions:
        """Deliver the last values: each on its own, whichever incarnation it is of."""
        actions: Actions = []
        for message in last_of_topics(found.messages):
            if message.epoch != self._epoch:
                self._epoch = message.epoch
                self.turns.clear()
            actions += self._deliver(message)
        return actions

    def _settle(self, head: Head) -> Actions:
        """Everything up to a head is known or told."""
        if head.epoch > self._epoch:
            self._go_over(head.epoch)
        self._reached = max(self._reached, head.seq)
        if head.state_seq:
            self._sure, self._state_seq = max(self._sure, head.seq), head.state_seq
        return self._mark(head)

    def _mark(self, head: Head) -> Actions:
        marked = self._lineage.takes_head(head)
        self._lineage.note(head.at_ns)
        return [SessionChange(self.connection, head.epoch)] if marked else []

    def _gap(
        self, first: int, last: int, cause: GapCause, missing: int | None, topic: str | None = None
    ) -> Gap:
        return Gap(self.connection, self._epoch, first, last, cause, missing, topic)
