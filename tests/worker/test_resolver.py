import asyncio
import socket
import subprocess
import sys
import threading
import time

import pytest
import uvloop

from worker.resolver import look_up

LOOPS = pytest.mark.parametrize(
    "factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]
HANGING = """
import asyncio, socket, sys, time
import uvloop
from worker.resolver import look_up

async def main():
    lookup = asyncio.ensure_future(look_up("away.test", 1, 0))
    await asyncio.sleep(0.1)
    lookup.cancel()

socket.getaddrinfo = lambda *_arguments: time.sleep(60)
(uvloop if sys.argv[1] == "uvloop" else asyncio).run(main())
print("ended")
"""


def run(coroutine, factory):
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(asyncio.wait_for(coroutine, 10))


@LOOPS
def test_a_name_of_this_machine_is_found(factory):
    found = run(look_up("localhost", 7, socket.AF_INET), factory)
    assert found[0][0] == socket.AF_INET
    assert found[0][4] == ("127.0.0.1", 7)


@LOOPS
def test_what_the_resolver_raises_is_told_to_whoever_asked(factory, monkeypatch):
    def raising(*_arguments):
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", raising)
    with pytest.raises(socket.gaierror, match="try again"):
        run(look_up("a.test", 1, 0), factory)


@LOOPS
def test_lookups_of_a_server_that_is_away_are_one_and_its_answer_is_theirs_who_still_wait(
    factory, monkeypatch
):
    asked, answer = [], threading.Event()

    def hanging(*arguments):
        asked.append(arguments)
        assert answer.wait(20)
        return FOUND

    async def act():
        for _ in range(50):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(look_up("away.test", 1, 0), 0.001)
        waiting = asyncio.ensure_future(look_up("away.test", 1, 0))
        await asyncio.sleep(0)
        assert len(asked) == 1
        answer.set()
        assert await waiting == FOUND
        assert await look_up("away.test", 1, 0) == FOUND
        assert len(asked) == 2, "nothing found is kept"

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    run(act(), factory)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_neither_the_loop_nor_the_process_waits_for_a_lookup(loop):
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", HANGING, loop], check=True, capture_output=True, timeout=50
    )
    assert done.stdout == b"ended\n"
    assert done.stderr == b""
    assert time.monotonic() - begun < 30
