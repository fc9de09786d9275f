"""A sequencer fed with facts, and a journal that answers it; a worker that publishes such facts."""

from hypothesis import strategies as st

from supervisor.items import Gap, Message, SessionChange
from supervisor.lineage import Head
from supervisor.repairs import holes_of
from supervisor.sequencer import Found, Look
from worker.envelope import STRETCHES


def run(sequencer, *facts, journal=(), oldest=0, unwanted=()):
    """Feed facts; the journal, which has ``unwanted`` numbers too, answers with its messages."""
    items = []
    for fact in facts:
        actions = sequencer.head(fact) if isinstance(fact, Head) else sequencer.message(fact)
        while actions:
            action = actions.pop(0)
            if isinstance(action, Look):
                assert not actions, "a look is the last action"
                kept = [m for m in journal if action.first <= m.seq <= action.last]
                numbers = sorted({m.seq for m in kept}.union(unwanted))
                holes = holes_of(numbers, action.first, action.last)
                wanted = [m._replace(repaired=True) for m in kept]
                actions = sequencer.found(Found(wanted, holes, oldest))
            else:
                items.append(action)
    return items


def told(items):
    """Short forms: 3 a message, '3r' a repaired one, (4, 6) a gap, 'session'."""
    short = []
    for item in items:
        if isinstance(item, Message):
            short.append(f"{item.seq}r" if item.repaired else item.seq)
        else:
            short.append((item.first, item.last) if isinstance(item, Gap) else "session")
    return short


class Worker:
    """
    What a worker publishes, over deaths and sessions. The time is a count of what it did.

    Attributes:
        sessions: Epoch and number of the session of each message, by ``seq``.
        connected: Epoch and number of each session that could give data.

    """

    def __init__(self):
        self.seq = self.at = self.epoch = self._number = 0
        self.sessions, self.connected = {}, []
        self.start()

    def start(self):
        """Begin another incarnation, with a session."""
        self.epoch, self._number = self.epoch + 1, 0
        self._stretch, self._states, self._counts = -1, 0, {}
        return self.dial()

    def dial(self, failures=0):
        """Have another session after so many dials that failed; return its state frame."""
        self._number += failures + 1
        self.connected.append((self.epoch, self._number))
        self._stretch = (self._stretch + 1) % STRETCHES
        return self.head()

    def head(self, **facts):
        """Return a state frame."""
        self.at += 1
        self._states += 1
        said = {"pid": self.epoch, "session": self._number, "connected": True} | facts
        return Head(
            self.seq, self.at, self.epoch, state_seq=self._states, stretch=self._stretch, **said
        )

    def message(self, topic="X"):
        self.at += 1
        self.seq += 1
        self._counts[topic] = self._counts.get(topic, 0) + 1
        self.sessions[self.seq] = self.connected[-1]
        return Message(
            "a", self.epoch, self.seq, self._counts[topic], topic, b"", 0, self.at, False, True,
            self._stretch,
        )  # fmt: skip

    def shared_memory(self):
        """Return what a look into shared memory tells."""
        self.at += 1
        return Head(self.seq, self.at)


@st.composite
def lives(draw, topics="X", unwanted="", *, looks=True):
    """Give a worker, facts of which some did not come, and the journal, which has not all."""
    worker = Worker()
    facts, journal = [worker.head()], []
    steps = "h" * 2 + "d" * 2 + "fk" + "l" * looks + 4 * (topics + unwanted)
    tell = {"h": worker.head, "d": worker.dial, "f": lambda: worker.dial(3), "k": worker.start}
    for step in draw(st.lists(st.sampled_from(steps), max_size=50)):
        if step == "l":  # it is quicker than some facts on their way
            on_their_way = draw(st.integers(0, min(5, len(facts) - 1)))
            facts.insert(len(facts) - on_their_way, worker.shared_memory())
        elif step in tell:
            facts += [tell[step]()] * draw(st.sampled_from([0, 1, 1]))
        else:
            sent = worker.message(step)
            if step in topics:
                journal += [sent] * draw(st.sampled_from([0, 1, 1, 1]))
                facts += [sent] * draw(st.sampled_from([0, 0, 1, 1, 1, 2]))
    return worker, [*facts, worker.shared_memory(), worker.head()], journal


def between(items):
    """Return each two messages that follow one another, with how many new sessions are told."""
    pairs, before, marks = [], None, 0
    for item in items:
        if isinstance(item, SessionChange):
            marks += 1
        elif isinstance(item, Message):
            if before is not None:
                pairs.append((before, item, marks))
            before, marks = item, 0
    return pairs
