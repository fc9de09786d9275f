"""Fifty workers at once."""

import time

import pytest
from exchange import running_exchange
from fleet import binance, running_fleet, wait_for

pytestmark = pytest.mark.system

NAMES = [f"c{number}" for number in range(50)]


def test_fifty_workers_come_up_and_go_within_their_time(tmp_path):
    with (
        running_exchange(rate=2) as exchange,
        running_fleet(tmp_path, binance(exchange, *NAMES)) as fleet,
    ):
        rows = fleet.wait_up(timeout_s=60)
        assert len({row["pid"] for row in rows.values()}) == 50
        assert len(exchange.sessions()) == 50
        began = time.monotonic()
        assert fleet.stop(60) == 0
        assert time.monotonic() - began < 18, "6 s, three times over for a busy machine"
        assert fleet.shm_files() == []
        assert not fleet.runtime_dir.exists()
        wait_for(lambda: not exchange.sessions(), "no socket left at the exchange")
