"""A ``RawExchange`` on a loop of its own, for tests whose worker is another process."""

import asyncio
import threading

from raw_exchange import RawExchange


class ExchangeThread:
    """A context manager; ``url``, ``open`` and ``accepted`` as of ``RawExchange``."""

    def __init__(self, script, **keys):
        self._script, self._keys = script, keys
        self._ready = threading.Event()
        self._failure = None

    def __enter__(self):
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure

    def call(self, function):
        """Have a function called on the exchange's loop."""
        self._loop.call_soon_threadsafe(function)

    def _run(self):
        try:
            asyncio.run(self._serve())
        except Exception as error:  # told by __exit__: a thread's exception would be a warning
            self._failure = error

    async def _serve(self):
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with RawExchange(self._script, **self._keys) as self._exchange:
            self._ready.set()
            await self._end.wait()

    def __getattr__(self, name):
        return getattr(self._exchange, name)
