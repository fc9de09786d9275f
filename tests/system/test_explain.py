"""``explain`` of real connections: up, stopped, hung, dying, failed, and without a supervisor."""

import json
import os
import signal
import subprocess
import sys

import pytest
from exchange import running_exchange
from fleet import binance, running_fleet, wait_for

pytestmark = pytest.mark.system

# What its login function makes of a worker.
OPERATOR = """
import os
def dies(context):
    os._exit(3)
def gives_up(context):
    os._exit(78)
"""


@pytest.fixture
def exchange():
    with running_exchange(rate=20) as running:
        yield running


@pytest.fixture
def operator(tmp_path, monkeypatch):
    (tmp_path / "explained_operator.py").write_text(OPERATOR)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def explained(fleet, name):
    return json.loads(fleet.command("explain", name, "--json", "--fleet", fleet.name).stdout)


def test_a_stopped_a_dying_and_a_failed_connection_say_why_and_what_to_do(
    tmp_path, exchange, operator
):
    toml = (
        binance(exchange, "a")
        + binance(exchange, "dying", extra='login = "explained_operator:dies"\n')
        + binance(exchange, "failed", extra='login = "explained_operator:gives_up"\n')
    )
    with running_fleet(tmp_path, toml) as fleet:
        fleet.wait_up("a")
        up = explained(fleet, "a")
        assert (up["schema"], up["state"], up["exits"]) == (1, "up", [])
        assert "up" in [event["kind"] for event in up["events"]]

        fleet.command("stop", "a", "--wait", "20")
        stopped = explained(fleet, "a")
        assert stopped["state"] == "stopped"
        assert stopped["stopped_by"] == "operator"
        assert stopped["mend"] == "supervisor start a"

        wait_for(lambda: explained(fleet, "dying")["crash_loop"], "a crash loop", 60)
        dying = wait_for(
            lambda: (d := explained(fleet, "dying"))["state"] == "crash_loop" and d, "no process"
        )
        assert dying["recent_deaths"] >= 5
        assert {death["code"] for death in dying["exits"]} == {3}
        assert dying["next_in_s"] is not None
        assert dying["mend"]

        failed = explained(fleet, "failed")
        assert failed["state"] == "failed"
        assert "78" in failed["why"]
        assert "supervisor start failed" in failed["mend"]
        for line in ("why", "next", "mend", "exit"):
            assert f"  {line} " in fleet.command("explain", "failed").stdout
        assert fleet.command("explain", "nobody", check=False).returncode == 2


def test_a_hung_worker_is_explained_and_leaves_its_stacks(tmp_path, exchange):
    patient = "hang = { warn_after = 1, timeout = 8 }\n"
    with running_fleet(tmp_path, binance(exchange, "a", extra=patient)) as fleet:
        pid = fleet.wait_up()["a"]["pid"]
        os.kill(pid, signal.SIGSTOP)
        hung = wait_for(
            lambda: (found := explained(fleet, "a"))["state"] == "hung" and found, "hung"
        )
        assert "no sign" in hung["why"] or "being ended" in hung["why"]
        wait_for(lambda: fleet.rows()["a"]["incarnation"] > 1, "replaced", 60)
        fleet.wait_up()
        found = explained(fleet, "a")
        assert found["exits"][-1]["cause"] == "hang"
        assert found["stacks"]["of"].endswith(f"incarnation 1 pid {pid}")
        assert "Aborted" in found["stacks"]["text"]
        assert "process.py" in fleet.command("explain", "a").stdout


def test_a_reader_that_goes_is_no_failure(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a")) as fleet:
        fleet.wait_up()
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [sys.executable, "-P", "-m", "supervisor", "explain", "a"],
            check=False,
            env=fleet.environment,
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (0, b"")


def test_it_answers_without_a_supervisor(tmp_path, exchange):
    toml = binance(exchange, "a", "b")
    with running_fleet(tmp_path, toml) as fleet:
        fleet.wait_up()
        fleet.command("stop", "b", "--wait", "20")
        fleet.process.kill()
        fleet.process.wait()
        assert explained(fleet, "a")["supervisor"]["alive"] is False
        assert explained(fleet, "b")["stopped_by"] == "operator"
        assert "the supervisor is dead" in fleet.command("explain", "b").stdout
