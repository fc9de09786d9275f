"""A sequencer fed with facts, and a journal that answers it."""

from supervisor.items import Gap, Message
from supervisor.lineage import Head
from supervisor.repairs import holes_of
from supervisor.sequencer import Found, Look


def run(sequencer, *facts, journal=(), oldest=0):
    """Feed facts; the journal answers with those of its messages that were asked for."""
    items = []
    for fact in facts:
        actions = sequencer.head(fact) if isinstance(fact, Head) else sequencer.message(fact)
        while actions:
            action = actions.pop(0)
            if isinstance(action, Look):
                assert not actions, "a look is the last action"
                kept = [m for m in journal if action.first <= m.seq <= action.last]
                holes = holes_of([m.seq for m in kept], action.first, action.last)
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
