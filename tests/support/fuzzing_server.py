"""A fuzzing server: our cases, asked for and judged as the Autobahn test suite's server does it.

``/getCaseCount`` says how many there are, ``/runCase?case=N&agent=A`` runs one and judges it,
``/updateReports?agent=A`` ends a run; ``reports`` is what its index.json would hold.
"""

import asyncio
import contextlib
from urllib.parse import parse_qs, urlsplit

from fuzzing_cases import CASES
from raw_exchange import CLOSE, PING, PONG, TEXT, frame

PATIENCE_S = 10
NORMAL = b"\x03\xe8"


async def judge(peer, case, patience_s):
    """Run a case; return what the client did wrong, "" if nothing."""
    sending = asyncio.get_running_loop().create_task(_send(peer, case))
    try:
        async with asyncio.timeout(patience_s):
            return await _listen(peer, case)
    except TimeoutError:
        return "it does not answer"
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _send(peer, case):
    data = b"".join(case.sends)
    step = case.chop or len(data)
    for start in range(0, len(data), step):
        peer.writer.write(data[start : start + step])
        await peer.writer.drain()
        if case.chop:
            await asyncio.sleep(0)


async def _listen(peer, case):
    heard = []
    if not case.closes:
        for _ in case.answers:
            if (said := await _frame(peer)) is None or said[0] == CLOSE:
                return f"it ended after {len(heard)} answers of {len(case.answers)}"
            heard.append(said)
        peer.writer.write(frame(PING, b"last") + frame(CLOSE, NORMAL))
        if (said := await _frame(peer)) != (PONG, b"last"):
            return f"it said what it was not asked for: {said}"
    while (said := await _frame(peer)) is not None and said[0] != CLOSE:
        heard.append(said)
    wanted = case.answers[: len(heard)] if case.may_miss else case.answers
    if tuple(heard) != wanted:
        return f"it answered {len(heard)} frames of {len(wanted)}, or others: {str(heard)[:80]}"
    if said is None:
        return "it ended without a close frame"
    code = int.from_bytes(said[1][:2], "big") if said[1] else None
    if code not in (case.closes or (1000,)):
        return f"it closed with {code}"
    if await _frame(peer) is not None:
        return "it went on after its close frame"
    return ""


async def _frame(peer):
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        return await peer.receive()
    return None


class FuzzingServer:
    """A script of ``RawExchange``; waits ``patience_s`` for what a client must say."""

    def __init__(self, cases=CASES, patience_s=PATIENCE_S):
        self.cases, self.patience_s = cases, patience_s
        self.reports = {}

    async def __call__(self, peer):
        target = urlsplit(peer.request.split(b" ")[1].decode())
        asked = {name: values[0] for name, values in parse_qs(target.query).items()}
        if target.path == "/getCaseCount":
            peer.send(TEXT, str(len(self.cases)).encode())
        elif target.path == "/runCase":
            case = self.cases[int(asked["case"]) - 1]
            why = await judge(peer, case, self.patience_s)
            behavior = {"behavior": "FAILED" if why else "OK", "why": why}
            self.reports.setdefault(asked["agent"], {})[case.name] = behavior
            return
        peer.send(CLOSE, NORMAL)
        await peer.gone()
