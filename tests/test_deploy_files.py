"""The files that ship load, and the reference page says what the code does."""

import configparser
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from fleet_reference import rows, tables_of

from supervisor.check import plan
from supervisor.fleet_model import BudgetTable, ConnectionKeys, ConnectionTable, schema
from supervisor.fleetfile import load

ROOT = Path(__file__).parent.parent


def test_the_demo_is_eight_connections_over_five_dialects():
    fleet = load(ROOT / "deploy" / "demo.toml")
    assert len(fleet.connections) == 8
    assert len({c.url.split("/")[3].split("?")[0] for c in fleet.connections}) == 5
    assert fleet.simulator.port == 9350
    assert fleet.simulator.shared, "else a rotation mixes two markets"


def test_the_example_loads_and_uses_every_key():
    path = ROOT / "deploy" / "fleet.example.toml"
    load(path)
    raw = tomllib.loads(path.read_text())
    used = set()

    def walk(value, prefix):
        for key, inner in value.items():
            used.add(f"{prefix}{key}")
            if isinstance(inner, dict):
                walk(inner, f"{prefix}{key}.")
            elif isinstance(inner, list) and inner and isinstance(inner[0], dict):
                walk(inner[0], f"{prefix}{key}[].")

    for table in [raw["defaults"], *raw["connection"]]:
        walk(table, "")
    for table in raw["budget"].values():
        walk(table, "budget.")
    known = {path for path, _field, _inner in tables_of(ConnectionTable)}
    known |= {path for path, _field, _inner in tables_of(BudgetTable, "budget.")}
    assert known - used == set()


def test_the_reference_page_holds_every_key_with_its_default():
    page = (ROOT / "docs" / "fleet-toml.md").read_text()
    written = list(rows())
    assert [row for row in written if row not in page] == []
    tables = [line for line in page.splitlines() if line.startswith("| `")]
    assert [line for line in tables if line not in written] == [], "keys that there are not"


def test_the_example_shows_every_kind_of_secret_and_matcher():
    text = (ROOT / "deploy" / "fleet.example.toml").read_text()
    for written in ("{ env = ", "{ file = ", "{ credential = ", "{ text = "):
        assert written in text


def test_the_schema_describes_every_key():
    document = schema()
    assert document["$defs"]["ConnectionTable"]["additionalProperties"] is False
    properties = document["$defs"]["ConnectionKeys"]["properties"]
    assert set(properties) == set(ConnectionKeys.model_fields)
    assert {"type": "number", "exclusiveMinimum": 0} in properties["heartbeat"]["anyOf"]
    assert {"type": "string"} in properties["heartbeat"]["anyOf"]
    # A table's default would be told in nanoseconds; its keys tell theirs as they are written.
    assert not any(isinstance(key.get("default"), dict) for key in properties.values())


def check(path):
    """Return the exit code and the document of ``supervisor check``."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "supervisor", "check", str(path), "--json"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, json.loads(done.stdout)


def test_what_the_example_names_is_there_for_who_checks_it():
    code, document = check(ROOT / "deploy" / "fleet.example.toml")
    assert (code, document["faults"]) == (0, [])


def test_check_prints_the_plan_and_faults_as_json(tmp_path):
    code, document = check(ROOT / "deploy" / "demo.toml")
    assert code == 0
    assert document == plan(load(ROOT / "deploy" / "demo.toml"))
    bad = tmp_path / "bad.toml"
    bad.write_text('[[connection]]\nname = "a"\nurl = "ws://h/"\nhearbeat = 1\n')
    code, document = check(bad)
    assert code == 5
    assert document["schema"] == 1
    assert document["ok"] is False
    assert document["faults"] == [
        {
            "file": str(bad),
            "line": 4,
            "key": "connection[0].hearbeat",
            "message": "unknown key",
            "hint": 'did you mean "heartbeat"?',
        }
    ]


UNIT = ROOT / "deploy" / "feedwarden.service"


def test_the_unit_leaves_workers_to_the_next_supervisor():
    unit = configparser.RawConfigParser(strict=True)
    unit.optionxform = str
    unit.read(UNIT)
    service = unit["Service"]
    assert service["KillMode"] == "process"
    assert service["OOMPolicy"] == "continue"
    assert service["Restart"] == "always"
    assert service["RuntimeDirectoryPreserve"] == "yes"
    assert service["RestartPreventExitStatus"].split() == ["4", "5"]
    assert service["Type"] == "exec", "sd_notify is not spoken"
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert service["ExecStart"].split()[1:] == ["run", "/etc/feedwarden/fleet.toml"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_understands_all_of_the_unit(tmp_path):
    command = UNIT.read_text().replace("/opt/feedwarden/bin/supervisor", "/bin/sh")
    copy = tmp_path / UNIT.name
    copy.write_text(command)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    ours = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line]
    assert (done.returncode, ours) == (0, [])
