"""Output: what tap and events print, and what becomes of the command line when stdout fails."""

import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest
from exchange import running_exchange
from fleet import PATIENCE_S, Fleet, binance, running_fleet, wait_for

from supervisor.items import Gap, Message, SessionChange
from supervisor.streams import tapped_document, tapped_line

pytestmark = pytest.mark.system
SUPERVISOR = [sys.executable, "-P", "-m", "supervisor"]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with (
        running_exchange(rate=200) as exchange,
        running_fleet(tmp_path_factory.mktemp("fleet"), binance(exchange, "a", "b")) as running,
    ):
        running.wait_up()
        yield running


def begun(fleet, *arguments, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(
        [*SUPERVISOR, *arguments], env=fleet.environment, stdin=subprocess.DEVNULL, **options
    )


def ended(process):
    """Return the exit code and stderr of a process that ends by itself."""
    try:
        _out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    text = (err or b"").decode()
    assert "Traceback" not in text
    assert "Exception ignored" not in text
    return process.returncode, text


# What is printed -------------------------------------------------------------------------------


def message(payload=b'{"a":1}', text=True, repaired=False):
    return Message("a", 3, 7, 2, "data.a.BTC", payload, 11, 12, repaired, text)


def test_a_tapped_text_is_text_and_anything_else_base64():
    document = tapped_document(message(), 4)
    assert (document["schema"], document["payload"], document["seq"]) == (1, '{"a":1}', 7)
    assert (document["kind"], document["missing"], document["repaired"]) == (1, 4, False)
    document = tapped_document(message(b"\xff\x00", text=False))
    assert document["payload_b64"] == "/wA="
    assert "payload" not in document


def test_a_tapped_line_tells_what_befell_and_commands_no_terminal():
    assert tapped_line(message(b"\x1b[2Jx\n")) == "data.a.BTC 3:7 \\x1b[2Jx\\x0a"
    assert "<2 bytes> ff 00" in tapped_line(message(b"\xff\x00", text=False))
    assert "(from the journal)" in tapped_line(message(repaired=True))
    assert tapped_line(Gap("a", 3, 3, 6, "lost", 4)) == "GAP: 4 missing of a: 3 to 6"
    assert tapped_line(SessionChange("a", 4)).startswith("SESSION: a ")


def test_tap_ends_after_its_count_and_its_numbers_grow_by_one(fleet):
    said = fleet.command("tap", "a", "--count", "20", "--json").stdout
    seqs = [json.loads(line)["seq"] for line in said.splitlines()]
    assert seqs == list(range(seqs[0], seqs[0] + 20))


def test_events_tells_a_death_and_follows_a_fleet_that_is_not_there_yet(fleet, tmp_path):
    process = begun(fleet, "events", "--json")

    def told():  # a subscription tells nobody when it is made
        fleet.command("kill", "b", "--wait", "20")
        return select.select([process.stdout], [], [], 1.0)[0]

    wait_for(told, "a death is told")
    assert json.loads(process.stdout.readline())["connection"] == "b"
    process.kill()
    process.communicate()
    waiting = begun(fleet, "events", "--follow", "--fleet", "later")
    time.sleep(1.0)
    assert waiting.poll() is None
    waiting.send_signal(signal.SIGINT)
    assert ended(waiting) == (130, "")
    assert fleet.command("events", "--fleet", "later", check=False).returncode == 6


# Endings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["tap", "a"], ["events"], ["status", "--watch"]], ids=" ".join
)
def test_an_interrupt_of_what_goes_on_for_ever_is_130(fleet, arguments):
    process = begun(fleet, *arguments, stdout=subprocess.DEVNULL)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "")


@pytest.mark.parametrize(
    "arguments",
    [["tap", "--json"], ["tap"], ["status", "--watch"], ["status"], ["status", "--json"]],
    ids=" ".join,
)
def test_a_reader_that_has_what_it_wants_is_no_error(fleet, arguments):
    process = begun(fleet, *arguments)
    process.stdout.close()
    process.stdout = None
    assert ended(process) == (0, "")


def test_events_ends_well_when_its_reader_went(fleet):
    process = begun(fleet, "events")
    process.stdout.close()
    process.stdout = None
    wait_for(lambda: _restarted(fleet, "a") and process.poll() is not None, "events ended")
    assert ended(process) == (0, "")


def _restarted(fleet, name):
    fleet.command("restart", name, "--wait", "20")
    return True


@pytest.mark.parametrize(
    "arguments",
    [["tap"], ["tap", "--json"], ["status"], ["status", "--json"], ["status", "--watch"],
     ["version"], ["schema"], ["--version"], ["--help"]],
    ids=" ".join,
)  # fmt: skip
def test_a_full_disk_is_exit_1_with_a_sentence(fleet, arguments):
    with open("/dev/full", "wb") as full:
        code, text = ended(begun(fleet, *arguments, stdout=full))
    assert code == 1
    assert "No space left on device" in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [["tap", "--count", "3", "--json"], ["tap", "--count", "3"], ["status"],
                  ["status", "--json"], ["version"], ["--version"], ["--help"]],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_stream_is_none_of_a_traceback(fleet, arguments, closed):
    redirection = f"{closed}>&-"
    process = subprocess.Popen(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *SUPERVISOR, *arguments],
        env=fleet.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert ended(process) == (0, "")


def test_an_error_is_not_printed_to_stdout_where_stderr_is_closed(fleet):
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *SUPERVISOR, "status", "zzz"],
        check=False,
        env=fleet.environment,
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_run_whose_readers_have_gone_does_not_end_as_if_all_were_well(tmp_path):
    fleet = Fleet(tmp_path, '[[connection]]\nname = "a"\nurl = "ws://127.0.0.1:1/"\n', "pipes")
    theirs, ours = os.pipe()
    os.close(theirs)
    try:
        process = subprocess.Popen(
            [*SUPERVISOR, "run", str(fleet.file)],
            env=fleet.environment,
            stdin=subprocess.DEVNULL,
            stdout=ours,
            stderr=ours,
            start_new_session=True,
        )
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # it runs on, and ends orderly when asked
            assert process.wait(PATIENCE_S) == 0
        else:
            assert process.returncode != 0
    finally:
        os.close(ours)
        fleet.kill_everything()


def test_version_is_an_option_too(fleet):
    assert fleet.command("--version").stdout == fleet.command("version").stdout
