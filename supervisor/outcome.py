"""Outcome: what a verb came to, as an exit code; what went wrong, told on stderr.

Without the command line's libraries: ``run`` of a fleet that is known goes without them.
"""

import contextlib
import os
import sys
from collections.abc import Callable

from shm.errors import DirectoryRefused, SegmentError, SegmentForeign, SegmentSpace
from supervisor.errors import FleetError
from supervisor.exit_codes import CONFIGURATION, FAILED, INTERRUPTED, OK


def of(function: Callable[[], int], *, streams: bool = False) -> int:
    """
    Return the exit code of a verb.

    Args:
        function: Does it and returns its code.
        streams: Whether a reader takes what it wants of the output and goes: that is no failure.

    """
    try:
        code = function()
        sys.stdout.flush()  # here, where what goes wrong can still be told
    except (FleetError, SegmentError) as error:
        complain(str(error))
        return error.exit_code if isinstance(error, FleetError) else segment_code(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError as error:
        drop_output()
        if streams:
            return OK
        complain(str(error))
        return FAILED
    except OSError as error:
        drop_output()
        complain(str(error))
        return FAILED
    return code


def complain(text: str) -> None:
    """Say on stderr what went wrong, if there is anybody to say it to."""
    with contextlib.suppress(OSError):
        print(f"supervisor: {text}", file=sys.stderr, flush=True)


def drop_output() -> None:
    """Let what is still to be written to stdout go nowhere, so that Python's end writes nothing."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def segment_code(error: SegmentError) -> int:
    """Return 5 if shared memory must be mended by the operator, 1 if it is merely unreadable."""
    mend = (DirectoryRefused, SegmentForeign, SegmentSpace)
    return CONFIGURATION if isinstance(error, mend) else FAILED
