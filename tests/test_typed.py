"""A user's program is checked against the types of an installed package, not of a source tree."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAM = """
import asyncio

from shm import attach
from supervisor.subscriber import Gap, Message, SessionChange, Subscriber
from worker import BackoffConfig, HeartbeatConfig, Stats, WebSocket, connect
from worker.client_events import Closed, Pong


async def main() -> None:
    heartbeat = HeartbeatConfig(
        interval=20.0,
        timeout=10.0,
        payload=b'{"op": "ping"}',
        use_ws_ping=False,
        use_application_ping=True,
        pong_matcher=lambda msg: msg.get("op") == "pong",
    )
    ws = WebSocket("wss://h.test/", heartbeat=heartbeat, backoff=BackoffConfig(max_attempts=3))

    @ws.on("pong")
    async def on_pong(event: Pong) -> None:
        print(event.latency_ms)

    def on_closed(event: Closed) -> None:
        print(event.code)

    ws.add_handler("closed", on_closed)
    async with ws:
        async for message in ws:
            await ws.send({"echo": message})
            rtt_ms: float = await ws.ping()
            stats: Stats = ws.stats()
            latency_ms: float | None = stats.latency_avg_ms
            print(rtt_ms, latency_ms)
    other: WebSocket = await connect("wss://h.test/", heartbeat="trading")
    await other.close()


def consume() -> None:
    with Subscriber("fleet", "a-*", topics=("X",), last_value=True) as subscriber:
        for item in subscriber:
            match item:
                case Message():
                    payload: bytes = item.payload
                    print(payload)
                case Gap() | SessionChange():
                    print(item.epoch)
    with attach("fleet", "a") as reader:
        counters: dict[str, int] = reader.counters()
        print(counters)


asyncio.run(main())
"""
WRONG = """
from worker import HeartbeatConfig, Websocket
HeartbeatConfig(intervall=20.0)
HeartbeatConfig(interval="20")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A Python whose site-packages hold the built package, and what it depends on."""
    folder = tmp_path_factory.mktemp("installed")
    for package in ("shm", "worker", "supervisor"):
        shutil.copytree(
            ROOT / package, folder / "src" / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "src" / name)
    python = folder / "venv" / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")],
        [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q"]
        + ["build_py", "--build-lib", str(folder / "built")],
    ):
        subprocess.run(command, check=True, cwd=folder / "src", capture_output=True)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    purelib = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    site = Path(purelib.stdout.strip())
    shutil.copytree(folder / "built", site, dirs_exist_ok=True)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def mypy(python, program, folder):
    (folder / "program.py").write_text(program)
    options = ["--strict", "--config-file", os.devnull, "--python-executable", str(python)]
    command = [sys.executable, "-m", "mypy", *options, "program.py"]
    return subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)


@pytest.mark.timeout(600)
@pytest.mark.skipif(importlib.util.find_spec("setuptools") is None, reason="it builds the package")
def test_a_users_program_is_checked_by_the_installed_types(installed, tmp_path):
    done = mypy(installed, PROGRAM, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    done = mypy(installed, WRONG, tmp_path)
    assert done.returncode == 1
    for fault in ('no attribute "Websocket"', '"intervall"', '"interval" to'):
        assert fault in done.stdout
