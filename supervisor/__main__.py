"""``python -m supervisor`` is the command line."""

from supervisor.cli import main

main()
