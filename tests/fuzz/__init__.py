"""Bad input on purpose: ``make fuzz``; a short run of each target is part of the unit tests.

The contract of every target: a named error or a counted skip, never a crash of the process (SIGBUS
included), never an endless loop, never bytes that nobody published.
"""
