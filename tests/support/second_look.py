"""Runs pytest; a few tests that failed run a second time, alone and one at a time.

Tests with real processes share the machine with their neighbours, three files at a time, and
sometimes with strangers. A test that fails in that company and passes alone is told loudly as
touchy and does not make the run red; one that fails alone too does. More than a few failures are
nobody's bad luck: then nothing is run again. docs/decisions tells why.

    python tests/support/second_look.py [pytest's arguments]
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

FAILED = 1  # pytest's exit code for "tests were run and some failed"
TOUCHY_MAX = 5
ALONE = ["--last-failed", "--last-failed-no-failures", "none", "-n", "0"]


def pytest(arguments, cache):
    """Run it with a cache of its own: the last failures of other runs are none of ours."""
    command = [sys.executable, "-m", "pytest", *arguments, "-o", f"cache_dir={cache}"]
    return subprocess.run(command, check=False).returncode


def last_failed(cache):
    """Return the names of what failed, files that could not be imported among them."""
    path = Path(cache, "v", "cache", "lastfailed")
    return sorted(json.loads(path.read_text())) if path.exists() else []


def tell(headline, names):
    print("\n".join(["", "=" * 78, headline, *(f"  {name}" for name in names), "=" * 78, ""]))
    sys.stdout.flush()


def main(arguments):
    """Return pytest's exit code, of the second run if there was one."""
    with tempfile.TemporaryDirectory(prefix="second-look-") as cache:
        code = pytest(arguments, cache)
        failed = last_failed(cache)
        if code != FAILED or not 0 < len(failed) <= TOUCHY_MAX:
            return code
        tell(f"{len(failed)} failed in company; once more, alone:", failed)
        code = pytest([*arguments, *ALONE], cache)
        if again := last_failed(cache):
            tell("FAILED ALONE TOO:", again)
            return code or FAILED
        if code == 0:
            tell("TOUCHY: failed in company and passed alone. Mend them.", failed)
        return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
