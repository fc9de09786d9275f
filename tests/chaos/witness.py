"""Witness: the subscriber and the auditor, in a process that faults do not slow down.

The other way round, too: two threads that take thousands of messages a second would leave whoever
injects faults in the same interpreter a few steps a second.
"""

import multiprocessing
import os
from collections import Counter
from dataclasses import dataclass, field

from chaos.auditor import Auditor
from chaos.consumer import Consumer

START_S = 60.0
spawning = multiprocessing.get_context("spawn")


@dataclass
class Findings:
    """
    What became of the messages.

    Attributes:
        taken, given: Messages by connection: in the journals, and delivered.
        missing: By connection, how many were taken and not delivered, their first and last number.
        foreign: By connection, how many were delivered and are in no journal.
        gaps: What was told to be gone: how many of it are in no journal either, and which it is.
        others: As of ``Consumer``.

    """

    taken: Counter = field(default_factory=Counter)
    given: Counter = field(default_factory=Counter)
    missing: dict = field(default_factory=dict)
    foreign: dict = field(default_factory=dict)
    gaps: list = field(default_factory=list)
    jumps: Counter = field(default_factory=Counter)
    places: dict = field(default_factory=dict)
    changes: int = 0
    repaired: int = 0
    wrongs: list = field(default_factory=list)


class Witness:
    """The process, as its parent sees it."""

    def __init__(self, fleet, names):
        self._pipe, theirs = spawning.Pipe()
        # As an argument: a process with the variable in its environment counts as the fleet's.
        arguments = (theirs, fleet.name, str(fleet.shm_base), str(fleet.shm_dir), list(names))
        self._process = spawning.Process(target=_watch, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        assert self._pipe.poll(START_S), "no witness"
        self._pipe.recv()

    def begin(self):
        """Count from here what faults bring about."""
        self._pipe.send(("begin",))

    def pause(self, seconds):
        """Have the subscriber read nothing for so long."""
        self._pipe.send(("pause", seconds))

    def findings(self, timeout_s):
        """Return what it found, once the fleet has ended; whatever goes wrong is in it."""
        if not self._pipe.poll(timeout_s):
            self._pipe.send(("end",))
            if not self._pipe.poll(timeout_s):
                return Findings(wrongs=["the witness does not answer"])
        try:
            return self._pipe.recv()
        except EOFError:
            return Findings(wrongs=["the witness died"])

    def close(self):
        self._process.kill()
        self._process.join()
        self._pipe.close()


# The process -----------------------------------------------------------------------------------


def _watch(pipe, fleet, shm_base, shm_dir, names):
    os.environ["FEEDWARDEN_SHM"] = shm_base
    consumer, auditor = Consumer(fleet), Auditor(shm_dir, names)
    consumer.start()
    auditor.start()
    pipe.send("ready")
    early = None
    while consumer.is_alive():
        if pipe.poll(0.1):
            verb, *arguments = pipe.recv()
            early = early or (verb == "end" and "the subscriber did not end with the fleet")
            getattr(consumer, verb)(*arguments)
    auditor.end()
    found = _compared(consumer, auditor, names)
    if early:
        found.wrongs.append(early)
    pipe.send(found)


def _compared(consumer, auditor, names):
    found = Findings(
        jumps=consumer.jumps,
        places=dict(consumer.places),
        changes=consumer.changes,
        repaired=consumer.repaired,
    )
    for name in names:
        taken, given = auditor.taken[name], consumer.delivered[name]
        found.taken[name], found.given[name] = taken.total(), given.total()
        if missing := taken - given:
            found.missing[name] = missing.total(), min(missing)[0], max(missing)[0]
        if foreign := given - taken:
            found.foreign[name] = foreign.total()
    for gap in consumer.gaps:
        kept = {seq for seq, _epoch, _crc in auditor.taken[gap.connection]}
        unkept = sum(seq not in kept for seq in range(gap.first, gap.last + 1))
        found.gaps.append((unkept, str(gap)))
    found.wrongs += consumer.wrongs
    for key in ("malformed", "resyncs", "journal_errors"):
        if consumer.stats.get(key):
            found.wrongs.append(f"{key} of the subscriber: {consumer.stats[key]}")
    for reader in (consumer, auditor):
        if reader.failure:
            found.wrongs.append(f"the {reader.name}: {reader.failure}")
    if auditor.lapped:
        found.wrongs.append(f"{auditor.lapped} x a journal came around before it was read")
    return found
