"""Random faults on a fleet under load: ``make chaos``; a short run is part of the system tests.

The contract: every message that a worker took reaches the subscriber once and in order, whoever
dies meanwhile, and at the end nothing is left over. The account (``account.py``) proves it from
three sides: the journals as another reader saw them, the workers' own counters, and the numbers
that the exchange gave its messages.
"""
