"""The second look at tests that failed: who gets one, and what makes a run red."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "support" / "second_look.py"
TOUCHY = """
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_touchy(number):
    mark = Path(__file__).with_name(f"seen-{{number}}")
    seen = mark.exists()
    mark.touch()
    assert seen
"""
BROKEN = "def test_broken():\n    assert False\n"
GOOD = """
from pathlib import Path

def test_good():
    mark = Path(__file__).with_name("good")
    mark.write_text(mark.read_text() + "x" if mark.exists() else "x")
"""


def run(folder, *arguments, **files):
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    # What it needs and no more: the other plugins take seconds to be loaded.
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin"}
    return subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), "-q", *arguments],
        check=False,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("spread", [["-n", "0"], ["-n", "2", "--dist", "loadfile"]])
def test_one_that_passes_alone_is_told_and_makes_nothing_red(tmp_path, spread):
    done = run(tmp_path, *spread, touchy=TOUCHY.format(count=1), good=GOOD)
    assert done.returncode == 0, done.stdout
    assert "TOUCHY" in done.stdout
    assert "test_touchy.py::test_touchy[0]" in done.stdout.split("TOUCHY")[1]
    assert (tmp_path / "good").read_text() == "x", "what passed is not run again"


def test_one_that_fails_alone_too_is_red(tmp_path):
    done = run(tmp_path, touchy=TOUCHY.format(count=1), broken=BROKEN)
    assert done.returncode == 1
    assert "test_broken.py::test_broken" in done.stdout.split("FAILED ALONE TOO")[1]
    assert "TOUCHY" not in done.stdout


def test_many_failures_are_nobodys_bad_luck(tmp_path):
    done = run(tmp_path, touchy=TOUCHY.format(count=6))
    assert done.returncode == 1
    assert "alone" not in done.stdout


def test_nothing_runs_twice_when_nothing_failed(tmp_path):
    done = run(tmp_path, good=GOOD)
    assert done.returncode == 0
    assert (tmp_path / "good").read_text() == "x"


def test_a_file_that_cannot_be_imported_is_red(tmp_path):
    assert run(tmp_path, good=GOOD, sick="import nothing_of_this_name\n").returncode != 0


def test_other_ends_of_pytest_are_handed_on(tmp_path):
    assert run(tmp_path, "--no-such-option", good=GOOD).returncode == 4
    assert run(tmp_path, "-k", "nothing", good=GOOD).returncode == 5
