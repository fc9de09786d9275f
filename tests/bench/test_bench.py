"""The pure parts of the bench: traffic, figures, goals, report."""

import json
import statistics
from pathlib import Path

import pytest

from bench import names, report, traffic
from bench.figures import Figures, Goal, alternated, percentile, ratio_by_round
from bench.goals import goals
from bench.sections import SECTIONS


def test_the_same_seed_gives_the_same_messages_and_another_seed_others():
    assert traffic.mixed(7, 50) == traffic.mixed(7, 50)
    assert traffic.mixed(7, 50) != traffic.mixed(8, 50)


def test_the_mix_has_the_sizes_of_recorded_traffic():
    sizes = [len(message.payload) for message in traffic.mixed(1)]
    share = lambda least: sum(size >= least for size in sizes) / len(sizes)  # noqa: E731
    assert share(64) == pytest.approx(0.97, abs=0.01)
    assert share(128) == pytest.approx(0.63, abs=0.03)
    assert statistics.mean(sizes) == pytest.approx(370, abs=30)


@pytest.mark.parametrize("size", [48, 100, 65_536])
def test_a_message_of_a_size_has_it_and_is_json(size):
    for message in traffic.sized(size, count=5):
        assert len(message.payload) == size
        assert json.loads(message.payload)["e"] == "trade"


@pytest.mark.parametrize(
    ("size", "head"),
    [(125, b"\x81\x7d"), (126, b"\x81\x7e\x00\x7e"), (65_536, b"\x81\x7f" + bytes(5) + b"\1\0\0")],
)
def test_a_frame_tells_its_length_as_rfc_6455_says(size, head):
    payload = b"x" * size
    assert traffic.encoded(traffic.Message(payload)) == head + payload


def test_a_recording_gives_what_was_received_text_and_binary():
    lines = [
        "wss://x/y <-> 1.5\n",
        'wss://x/y <- 1.6: {"op":"subscribe"}\n',
        '2.25: {"a": 1}\n',
        "2.5: b'\\x1f\\x8b'\n",
    ]
    found = traffic.recorded(lines)
    assert len(found) == traffic.POOL
    text, binary = traffic.Message(b'{"a": 1}'), traffic.Message(b"\x1f\x8b", is_text=False)
    assert found[:4] == [text, binary, text, binary]
    with pytest.raises(ValueError, match="what was received"):
        traffic.recorded(lines[:2])


def test_bursts_join_frames_and_refuse_what_would_leave_some_over():
    assert traffic.batched([b"a", b"b", b"c", b"d"], 2) == [b"ab", b"cd"]
    with pytest.raises(ValueError, match="do not divide"):
        traffic.batched([b"a", b"b", b"c"], 2)


def test_everybody_has_one_turn_a_round_and_another_is_first_each_time():
    assert list(alternated(["a", "b", "c"], 2)) == [
        (0, "a"),
        (0, "b"),
        (0, "c"),
        (1, "b"),
        (1, "c"),
        (1, "a"),
    ]


def test_a_ratio_is_taken_round_by_round():
    assert ratio_by_round([1, 10, 300], [1, 5, 100]) == 2
    assert ratio_by_round([1, 2], []) is None
    assert ratio_by_round([1], [0]) is None


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (50, 2), (75, 3), (99, 4), (100, 4)])
def test_a_percentile_is_one_of_the_values(percent, expected):
    assert percentile([4, 1, 3, 2], percent) == expected


def test_a_percentile_of_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)


def measured():
    figures = Figures()
    figures.add(names.RATE, "plain", names.OURS, [80, 60, 90])
    figures.add(names.RATE, "plain", names.FLOOR, [100, 100, 100])
    figures.add(names.RATE, "plain", names.JETSOCKET, (), "not installed")
    return figures


def test_goals_of_sections_that_were_run_are_met_or_not_and_the_others_not_told():
    found = {goal.what: goal for goal in goals(measured())}
    assert found["throughput to the floor's, plain"] == Goal(
        "throughput to the floor's, plain", 0.8, 0.7, "×", at_least=True
    )
    assert found["throughput to the floor's, plain"].met is True
    assert found["of it lost after repair, plain"].met is None
    assert not [what for what in found if "SIGKILL" in what or "latency" in what]


def test_at_most_and_at_least_are_the_limits_themselves():
    assert Goal("x", 1.4, 1.4).met is True
    assert Goal("x", 1.41, 1.4).met is False
    assert Goal("x", 3.2, 3.2, at_least=True).met is True
    assert Goal("x", 3.1, 3.2, at_least=True).met is False


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0512, "0.051"), (2.5, "2.50"), (17.83, "17.8"), (350_123, "350,000")],
)
def test_numbers_have_the_digits_that_mean_something(value, text):
    assert report.number(value) == text


def test_the_report_tells_medians_ranges_ratios_goals_and_who_is_missing():
    figures = measured()
    text = report.markdown(figures, goals(figures), {"cores": "2"}, {names.RATE: names.FLOOR})
    assert "cores 2." in text
    assert f"| {names.OURS} | 80.0 (60.0 to 90.0), ×0.80 |" in text
    assert f"| {names.FLOOR} | 100 |" in text
    assert f"| {names.JETSOCKET} | not installed |" in text
    assert "| throughput to the floor's, plain | 0.800 × | ≥ 0.700 × | met |" in text


def test_the_document_holds_every_round_and_is_json():
    figures = measured()
    document = json.loads(json.dumps(report.document(figures, goals(figures), {}, {})))
    assert document["schema"] == 1
    assert document["measures"][0]["values"] == [80, 60, 90]
    assert document["measures"][2] == {
        "table": names.RATE,
        "column": "plain",
        "contender": names.JETSOCKET,
        "values": [],
        "median": None,
        "note": "not installed",
    }


def test_the_page_gets_the_report_between_its_markers_and_nothing_else_changes():
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.spliced(page, "new\n") == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    for broken in ("nothing", f"{report.END} {report.BEGIN}", report.BEGIN):
        with pytest.raises(ValueError, match="no <!-- bench"):
            report.spliced(broken, "new")


def test_the_page_names_every_section_and_has_a_place_for_the_result():
    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    (line,) = [line for line in page.splitlines() if "ONLY=" in line]
    assert line.split("some sections: ")[1].split() == list(SECTIONS)
    assert "result" in report.spliced(page, "result")
