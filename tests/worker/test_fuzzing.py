"""Both engines through the cases of tests/support/fuzzing_cases.py, judged by the server."""

import pytest
from fuzzing_cases import CASES
from fuzzing_client import Echo, Mute, run_cases, table
from fuzzing_server import FuzzingServer
from raw_exchange import RawExchange
from wires import run

# docs/decisions/0008-two-engines.md says why.
KNOWN = {
    "picows": {
        "7 a close after the close",
        "7 a breach after the close",
        "7 garbage after the close",
    }
}
SECTIONS = sorted({case.name.split()[0] for case in CASES})


async def reports_of(cases, engine, owner, **keys):
    server = FuzzingServer(cases, **keys)
    async with RawExchange(server) as exchange:
        await run_cases(exchange.url.removesuffix("/ws"), engine, owner=owner)
    return server.reports


@pytest.mark.parametrize("section", SECTIONS)
def test_no_case_fails_but_those_known(section, engine):
    cases = [case for case in CASES if case.name.split()[0] == section]
    reports = run(reports_of(cases, engine, Echo))
    assert reports[engine].keys() == {case.name for case in cases}
    _lines, failed = table(reports)
    known = {f"{engine} {name}" for name in KNOWN.get(engine, ())}
    assert set(failed) <= known, [reports[engine][name.split(" ", 1)[1]] for name in failed]


def test_the_judge_fails_a_client_that_echoes_nothing(engine):
    cases = [case for case in CASES if case.name.startswith("1.1")][:3]
    reports = run(reports_of(cases, engine, Mute, patience_s=0.2))
    assert [told["behavior"] for told in reports[engine].values()] == ["FAILED"] * 3
    assert table(reports)[0][-1] == f"| {engine} | 3 | 3 FAILED |"
