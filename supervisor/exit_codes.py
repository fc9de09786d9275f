"""Exit codes of the command line; docs/operations.md is for users. Those of workers are others."""

OK = 0
FAILED = 1  # what has no code of its own
USAGE = 2  # also an unknown name
NOT_UP = 3  # with --check
ALREADY_RUNNING = 4
CONFIGURATION = 5
NO_SUCH_FLEET = 6
TIMED_OUT = 7
INTERRUPTED = 130  # 128 and SIGINT, as shells have it
