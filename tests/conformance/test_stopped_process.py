"""L11 for a whole process: one that stood over its deadline believes the pong that waited."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from library import Answering, exchange_of, run, until

CHILD = """
import asyncio, sys
from worker import HeartbeatConfig, WebSocket

async def main():
    heartbeat = HeartbeatConfig(interval=0.4, timeout=0.2, first=0.05)
    async with WebSocket(sys.argv[1], heartbeat=heartbeat) as ws:
        for name in ("pong", "timeout", "disconnected"):
            ws.add_handler(name, lambda event: print(event.name, event, flush=True))
        await asyncio.sleep(60)

asyncio.run(main())
"""
ROOT = Path(__file__).resolve().parents[2]


class StoppedAtPing(Answering):
    """Stops the client at its first ping, answers, lets it go on beyond the deadline."""

    child = None

    def ping(self, peer, body):
        if len(self.pings) > 1:
            super().ping(peer, body)
            return
        os.kill(self.child.pid, signal.SIGSTOP)
        asyncio.get_running_loop().create_task(self.wake(peer, body))

    async def wake(self, peer, body):
        await until(lambda: state_of(self.child.pid) == "T")
        super().ping(peer, body)
        await asyncio.sleep(0.5)
        os.kill(self.child.pid, signal.SIGCONT)


def state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_l11_a_client_that_was_stopped_over_its_deadline_declares_no_death(tmp_path):
    async def act():
        script = StoppedAtPing()
        said = tmp_path / "said"
        async with exchange_of(script) as exchange:
            with said.open("wb") as out:
                command = [sys.executable, "-c", CHILD, exchange.url]
                script.child = subprocess.Popen(command, cwd=ROOT, stdout=out)  # noqa: ASYNC220
            try:
                await until(lambda: said.read_text().count("pong ") >= 3)
                lines = said.read_text().splitlines()
                assert {line.split()[0] for line in lines} == {"pong"}
                assert "latency_ms=None" in lines[0]
                assert "latency_ms=None" not in lines[1]
                assert exchange.accepted == 1
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(script.child.pid, signal.SIGCONT)
                script.child.kill()
                script.child.wait(10)

    run(act())
