"""Samples are tested with S2 in tests/conformance/test_stats.py."""

from worker.client_stats import Latencies


def test_without_a_sample_there_is_nothing_to_tell():
    latencies = Latencies()
    assert latencies.last_ms is latencies.average_ms is latencies.percentile_ms(50) is None
    assert latencies.extremes_ms() == (None, None)


def test_the_extreme_percentiles_are_the_extreme_samples():
    latencies = Latencies()
    for rtt_ns in (5_000_000, 1_000_000, 3_000_000):
        latencies.add(rtt_ns)
    assert latencies.percentile_ms(100) == 5.0
    assert 1.0 <= latencies.percentile_ms(0) <= 1.0 * (1 + 1 / 128)
    assert (latencies.last_ms, latencies.average_ms) == (3.0, 3.0)


def test_a_session_without_measurable_pongs_has_no_latency_of_the_one_before():
    latencies = Latencies()
    latencies.add(1_000_000)
    latencies.session_ended()
    assert latencies.last_ms is None
    assert latencies.percentile_ms(50) == 1.0
