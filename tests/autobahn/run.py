"""Run both engines against the fuzzing server of the Autobahn test suite and print what it says.

    make autobahn
    PYTHONPATH=tests/support .venv/bin/python tests/autobahn/run.py \\
        --server ws://127.0.0.1:9001 --reports DIRECTORY

Without ``--server`` the suite's own container is started; that needs docker. DIRECTORY is where the
server writes its reports (its ``outdir``). Ends with 1 if a case FAILED. Takes a minute; with
``--compression``, whose cases echo gigabytes, a quarter of an hour.

The suite speaks Python 2 only. With one of those it needs no docker:

    python2.7 -m pip install --target SUITE autobahntestsuite; touch SUITE/zope/__init__.py
    PYTHONPATH=SUITE python2.7 -c "from autobahntestsuite.wstest import run; run()" \\
        -m fuzzingserver -s SPEC.json

where SPEC.json holds url, outdir, cases and exclude-cases as ``SETTINGS`` below.
"""

import argparse
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from fuzzing_client import run_cases, table

IMAGE = "crossbario/autobahn-testsuite"
PORT = 9001
ENGINES = ("websockets", "picows")
SETTINGS = {
    "url": f"ws://0.0.0.0:{PORT}",
    "outdir": "/reports",
    "cases": ["*"],
    "exclude-cases": ["12.*", "13.*"],  # permessage-deflate: see --compression
}
START_S = 30


@contextlib.contextmanager
def container(reports, *, compression):
    """The suite's own server; gives its URL."""
    if shutil.which("docker") is None:
        sys.exit("no docker here: start a fuzzing server elsewhere, give --server and --reports")
    settings = dict(SETTINGS)
    if compression:
        del settings["exclude-cases"]
    reports.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "fuzzingserver.json").write_text(json.dumps(settings))
        command = ["docker", "run", "--rm", "-p", f"127.0.0.1:{PORT}:{PORT}"]
        command += ["-v", f"{folder}:/config", "-v", f"{reports.resolve()}:/reports", IMAGE]
        command += ["wstest", "-m", "fuzzingserver", "-s", "/config/fuzzingserver.json"]
        with subprocess.Popen(command) as process:
            try:
                wait_for_port(process)
                yield f"ws://127.0.0.1:{PORT}"
            finally:
                process.terminate()


def wait_for_port(process):
    ends = time.monotonic() + START_S
    while time.monotonic() < ends and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT), 1):
            return
        time.sleep(0.2)
    sys.exit(f"the fuzzing server did not start within {START_S} s; its output is above")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", help="URL of a fuzzing server that runs already")
    parser.add_argument("--reports", type=Path, default=Path("build/autobahn"))
    parser.add_argument("--engine", choices=ENGINES, action="append")
    parser.add_argument("--compression", action="store_true", help="websockets only")
    options = parser.parse_args()
    engines = options.engine or (ENGINES[:1] if options.compression else ENGINES)
    server = (
        contextlib.nullcontext(options.server)
        if options.server
        else container(options.reports, compression=options.compression)
    )
    with server as url:
        for engine in engines:
            uvloop.run(run_cases(url, engine, compression=options.compression))
    found = sorted(options.reports.rglob("index.json"))
    if not found:
        sys.exit(f"no index.json below {options.reports}: --reports must be the server's outdir")
    lines, failed = table(json.loads(found[0].read_text()))
    print("\n".join([*lines, *(f"FAILED {name}" for name in failed)]))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
