"""An exchange that is not ours: an aiohttp server that sends numbered messages, in a process."""

import argparse
import asyncio
import json
import random

from aiohttp import web


def message(number):
    """Message ``number``, the same in sender and checker; sizes vary as market data does."""
    generator = random.Random(number)
    size = min(8000, int(generator.lognormvariate(5.2, 0.8)))
    if number % 50 == 0:
        return bytes(generator.randrange(256) for _ in range(size))
    return json.dumps({"n": number, "x": "é" + "x" * size}, ensure_ascii=False)


async def stream(request):
    """After the first message of the client, send all, on a timetable."""
    count, rate = request.app["count"], request.app["rate"]
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    reader = asyncio.create_task(drain(socket))
    await request.app["go"].wait()
    loop = asyncio.get_running_loop()
    started = loop.time()
    for number in range(count):
        body = message(number)
        await (socket.send_str(body) if isinstance(body, str) else socket.send_bytes(body))
        ahead = started + number / rate - loop.time()
        if ahead > 0.002:
            await asyncio.sleep(ahead)
    await reader
    return socket


async def drain(socket):
    async for _ in socket:
        pass


async def go(request):
    """Start the stream: the test says when its subscriber is there."""
    request.app["go"].set()
    return web.Response(text="ok")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    arguments = parser.parse_args()
    app = web.Application()
    app["count"], app["rate"], app["go"] = arguments.count, arguments.rate, asyncio.Event()
    app.router.add_get("/ws", stream)
    app.router.add_get("/go", go)
    web.run_app(
        app, host="127.0.0.1", port=0, print=lambda text: print(text, flush=True), access_log=None
    )


if __name__ == "__main__":
    main()
