"""Resolver: names to addresses, in threads that nobody has to wait for.

getaddrinfo(3) cannot be interrupted, and with a name server that is away it takes half a minute.
The loops run it in pools that they join when they close, and where a lookup waits for those before
it: a stop would last as long as the outage, and the first answer after it come late.
"""

import asyncio
import contextlib
import socket
import threading
from typing import Any
from weakref import WeakKeyDictionary

Found = list[tuple[Any, ...]]
_Key = tuple[str, int, int]
_pending: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, asyncio.Future[Found]]] = (
    WeakKeyDictionary()
)


async def look_up(host: str, port: int, family: int) -> Found:
    """
    Return what getaddrinfo(3) finds for TCP.

    A lookup that is under way is joined: who asks again while the name server is away does not add
    a thread each time. What was found is not kept.

    Raises:
        socket.gaierror: If the name cannot be resolved.
        UnicodeError: If it can be no name.

    """
    loop = asyncio.get_running_loop()
    pending = _pending.setdefault(loop, {})
    key = host, port, family
    found = pending.get(key)
    if found is None:
        found = pending[key] = loop.create_future()
        found.add_done_callback(lambda done: _forget(pending, key, done))
        # A daemon: the interpreter does not wait for it either.
        threading.Thread(
            target=_work, args=(loop, found, key), name="resolver", daemon=True
        ).start()
    return await asyncio.shield(found)


def _work(loop: asyncio.AbstractEventLoop, found: asyncio.Future[Found], key: _Key) -> None:
    host, port, family = key
    result: Found | Exception
    try:
        result = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except Exception as error:  # told to whoever waits
        result = error
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(_settle, found, result)


def _settle(found: asyncio.Future[Found], result: Found | Exception) -> None:
    if found.done():
        return
    if isinstance(result, Exception):
        found.set_exception(result)
    else:
        found.set_result(result)


def _forget(pending: dict[_Key, asyncio.Future[Found]], key: _Key, done: Any) -> None:
    del pending[key]
    if not done.cancelled():
        done.exception()  # seen, though everybody who asked may have gone
