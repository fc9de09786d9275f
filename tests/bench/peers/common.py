"""What every peer needs besides its own few lines: trust for TLS, and a count told on SIGUSR1."""

import os
import signal
import ssl


def trust():
    """Return the context for wss URLs, None for ws."""
    certificates = os.environ.get("BENCH_CA")
    return ssl.create_default_context(cafile=certificates) if certificates else None


def tell(loop, count):
    """Print ``count()`` on every SIGUSR1."""
    loop.add_signal_handler(signal.SIGUSR1, lambda: print(count(), flush=True))
