"""The program: ``supervisor``, ``feedwarden`` and ``python -m supervisor`` begin here.

Importing the command line takes a third of a second. A signal that stops ``run`` in that time has
nothing to clean up yet, and ends it as documented instead of by death or traceback. ``run FILE``
itself goes without it: a supervisor that follows a dead one is wanted at once.
"""

import os
import signal
import sys

from supervisor.exit_codes import INTERRUPTED, OK


def main() -> None:
    """Run the command line and end the process with its exit code."""
    if sys.argv[1:2] == ["run"]:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda _number, _frame: os._exit(OK))
    try:
        if len(sys.argv) == 3 and sys.argv[1] == "run" and not sys.argv[2].startswith("-"):
            from supervisor.launch import main as launch

            launch(sys.argv[2])
        from supervisor.cli import main as command_line
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
    command_line()


if __name__ == "__main__":
    main()
