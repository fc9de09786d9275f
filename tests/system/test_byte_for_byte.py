"""A subscriber of pyzmq and struct gets what a foreign server sent, byte for byte."""

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from fleet import running_fleet, wait_for
from foreign_exchange import message
from listening import listening

from shm.layout import Word
from shm.view import StatsView

pytestmark = pytest.mark.system

COUNT, RATE = 200_000, 5_000
TOML = """
[[connection]]
name = "foreign"
url = "ws://127.0.0.1:{port}/ws"
subscribe = ["begin"]
heartbeat = {{ interval = 1, timeout = 60 }}
"""


@pytest.fixture
def foreign():
    script = Path(__file__).parent.parent / "support" / "foreign_exchange.py"
    command = [sys.executable, str(script), "--count", str(COUNT), "--rate", str(RATE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(re.search(r":(\d+)", process.stdout.readline())[1])
        finally:
            process.kill()


@pytest.mark.timeout(300)
def test_two_hundred_thousand_messages_at_five_thousand_a_second(tmp_path, foreign):
    with running_fleet(tmp_path, TOML.format(port=foreign)) as fleet:
        row = fleet.wait_up()["foreign"]
        with listening([row["endpoint"]], [b"data.foreign\0"]) as listener:
            wait_for(lambda: subscribed(fleet), "the subscription has arrived")
            urllib.request.urlopen(f"http://127.0.0.1:{foreign}/go", timeout=5).close()
            wait_for(lambda: len(listener.frames) >= COUNT, "all of them", 240)
            data = listener.data()
        assert [header[4] for _topic, header, _payload in data] == list(range(1, COUNT + 1))
        assert [header[5] for _topic, header, _payload in data] == list(range(1, COUNT + 1))
        for number, (_topic, header, payload) in enumerate(data):
            sent = message(number)
            is_text = isinstance(sent, str)
            assert payload == (sent.encode() if is_text else sent), number
            assert bool(header[2] & 1) is is_text
        stamps = [header[7] for _topic, header, _payload in data]
        assert stamps == sorted(stamps)
        assert fleet.rows()["foreign"]["messages"] == COUNT


def subscribed(fleet):
    directory = next(fleet.shm_base.glob("feedwarden-*/t"))
    with StatsView.open(directory, "foreign") as view:
        return view.words[Word.SUBSCRIBERS] > 0
