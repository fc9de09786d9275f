"""The pages in docs/ say what the code says."""

import dataclasses
import inspect
import re
import tomllib
from pathlib import Path

import pytest
from diagrams import mermaid

from supervisor import cli, exit_codes, restart_state, status
from supervisor.fleetfile import load
from supervisor.inlet import Counts
from supervisor.subscriber import Event, Gap, Message, SessionChange, Subscriber
from worker import client_events, heartbeat, rotation, session_state, turns
from worker.announcement import Cause, EventKind
from worker.envelope import HEADER, Flag, Kind
from worker.exits import PERMANENT, Exit

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
RESERVED = {"gap_possible"}
FAULTS = range(1, 35)  # of supervision, each with a test of its number


def page(name):
    return (DOCS / name).read_text()


def table(text, heading):
    """Return the rows below the table header that begins with ``heading``, cells stripped."""
    lines = text[text.index(f"\n| {heading}") + 1 :].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def words(text, heading):
    return [row[0].strip("`") for row in table(text, heading)]


@pytest.mark.parametrize("machine", [heartbeat, session_state, rotation, turns, restart_state])
def test_the_diagrams_are_the_machines(machine):
    assert f"```mermaid\n{mermaid(machine.TRANSITIONS)}\n```" in page("architecture.md")


def test_every_module_has_its_room_on_the_map():
    rooms = page("architecture.md").split("## Rooms")[1].split("## Machines")[0]
    mentioned = set(re.findall(r"`(\w+)`", rooms))
    for package in ("shm", "worker", "supervisor"):
        modules = {path.stem for path in (ROOT / package).glob("*.py")}
        assert modules - {"__init__", "__main__"} <= mentioned


def test_what_the_map_calls_pure_is_held_to_it_by_the_import_contract():
    rooms = page("architecture.md").split("## Rooms")[1].split("## Machines")[0]
    package, called_pure = "", set()
    for line in rooms.splitlines():
        if row := re.match(r"\| (?:`(\w+)` )?\| (.*?) \|", line):
            package = row[1] or package
            called_pure |= {f"{package}.{name}" for name in re.findall(r"`(\w+)` \*pure\*", row[2])}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    (pure,) = (rule for rule in contracts if rule["name"].startswith("Pure machines"))
    assert called_pure == set(pure["source_modules"])


def test_the_wire_format_page_names_every_kind_flag_event_and_cause():
    text = page("wire-format.md")
    assert f"`{HEADER.format}`" in text
    assert {int(row[0]): row[1] for row in table(text, "kind | | topic")} == {
        kind.value: kind.name.lower() for kind in Kind
    }
    assert {row[0]: int(row[1]) for row in table(text, "flag |")} == {
        flag.name.lower(): flag.value for flag in Flag
    }
    events = words(text, "kind | when")
    assert set(events) | RESERVED == {kind.label for kind in EventKind}
    assert not set(events) & RESERVED
    assert words(text, "cause |") == [cause.value for cause in Cause]
    assert set(re.findall(r"`(\w+)`", text.split("later versions:")[1].split("\n")[0])) == RESERVED


def test_the_subscriber_of_the_wire_format_page_is_python():
    (program,) = re.findall(r"```python\n(.*?)```", page("wire-format.md"), re.S)
    compile(program, "subscriber.py", "exec")


def test_the_operations_page_names_every_verb_state_and_exit_code():
    text = page("operations.md")
    verbs = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    assert {word.split()[0] for word in words(text, "verb |")} == verbs
    assert set(words(text, "state |")) == set(status.STATES)
    codes = {int(row[0]) for row in table(text, "code | |")}
    assert codes == {code for code in vars(exit_codes).values() if isinstance(code, int)}
    workers = text.split("Of a worker")[1]
    named = {int(row[0]): (row[1].split(":")[0], row[2]) for row in table(workers, "code | |")}
    assert named == {
        code.value: (
            code.name.lower(),
            "no" if code in PERMANENT else "if wanted" if code is Exit.STOPPED else "yes",
        )
        for code in Exit
    }


def test_links_between_pages_lead_somewhere():
    for path in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), (path.name, target)


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def test_every_python_example_compiles():
    examples = [
        (path.name, program)
        for path in [ROOT / "README.md", *DOCS.glob("*.md")]
        for program in blocks(path.read_text(), "python")
    ]
    assert len(examples) >= 5
    for name, program in examples:
        compile(program, name, "exec")


@pytest.mark.parametrize("pattern", blocks(page("heartbeat.md"), "toml"))
def test_every_pattern_of_the_heartbeat_page_is_a_valid_connection(pattern, tmp_path):
    file = tmp_path / "fleet.toml"
    file.write_text(f'version = 1\n[[connection]]\nname = "a"\nurl = "ws://h.test/"\n{pattern}')
    assert load(file).connections


def test_every_event_of_the_library_is_on_the_heartbeat_page():
    text = page("heartbeat.md").split("Events, each with")[1]
    assert {name for name in client_events.NAMES if f"`{name}(" in text} == client_events.NAMES


def test_the_subscriber_page_names_every_field_and_counter():
    text = page("subscriber.md")
    assert {row[0].strip("`"): row[1].strip("`").split(", ") for row in table(text, "item |")} == {
        item.__name__: list(item._fields) for item in (Message, Gap, SessionChange, Event)
    }
    counters = [field.name for field in dataclasses.fields(Counts)]
    assert words(text, "counter |") == [*counters, "events", "events_lost"]
    arguments = {word.split("=")[0] for word in words(text, "argument |")}
    named = inspect.signature(Subscriber).parameters.values()
    assert arguments == {a.name for a in named if a.kind is a.KEYWORD_ONLY}


def test_every_fault_has_a_test_of_its_number():
    rooms = [path.read_text() for path in (ROOT / "tests" / "faults").glob("test_*.py")]
    tests = re.compile(r"^(?:def test_f|class TestF)(\d\d)(?=[_(])", re.MULTILINE)
    assert {int(number) for text in rooms for number in tests.findall(text)} == set(FAULTS)
