"""A changed specification, told apart by digest and handed to a living worker."""

from dataclasses import replace

import msgspec
import pytest

from supervisor.spec_digest import cost, digest
from supervisor.spec_handover import SpecHandover
from worker.endpoints import spec_file
from worker.respec import Change
from worker.spec import ConnectionSpec, PublishSpec

SPEC = ConnectionSpec(name="a", url="ws://h/")
ANOTHER = replace(SPEC, url="ws://i/")


@pytest.fixture
def told():
    return []


@pytest.fixture
def handover(tmp_path, told):
    return SpecHandover(tmp_path, SPEC, lambda: told.append("read it"))


def found(directory):
    file = spec_file(directory, "a")
    return msgspec.msgpack.decode(file.read_bytes(), type=ConnectionSpec) if file.exists() else None


@pytest.mark.parametrize(
    ("wanted", "takes"),
    [
        (SPEC, Change.NONE),
        (ANOTHER, Change.LIVE),
        (replace(SPEC, publish=PublishSpec(journal=1 << 20)), Change.RESTART),
    ],
)
def test_a_digest_tells_whether_a_new_process_is_needed(wanted, takes):
    assert cost(digest(SPEC), digest(wanted)) is takes


def test_what_is_prepared_is_found_when_it_is_committed_and_not_before(handover, tmp_path):
    handover.prepare(ANOTHER)
    assert found(tmp_path) is None
    handover.commit()
    assert found(tmp_path) == ANOTHER


def test_what_was_refused_after_all_is_never_found(handover, tmp_path):
    handover.prepare(ANOTHER)
    handover.unprepare()
    handover.commit()
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_listens_is_told_at_once(handover, told):
    handover.give(ANOTHER, listens=True)
    handover.listens()
    assert told == ["read it"]
    assert handover.cost(ANOTHER) is Change.NONE


def test_a_worker_that_does_not_listen_yet_is_told_when_it_does(handover, told):
    handover.give(ANOTHER, listens=False)
    assert told == []
    handover.listens()
    handover.listens()
    assert told == ["read it"]


def test_a_worker_that_was_born_with_it_is_not_told(handover, told):
    handover.give(ANOTHER, listens=False)
    handover.begin(ANOTHER)
    handover.listens()
    assert told == []
