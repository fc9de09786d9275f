"""Sockets: a SUB as docs/wire-format.md wants it, and that of an endpoint which comes and goes."""

from collections.abc import Sequence

import zmq

DONTWAIT = int(zmq.DONTWAIT)
RCVHWM = 100_000  # messages of one connection, in our process and not in the publisher's
RECONNECT_MS, RECONNECT_MAX_MS = 1, 100  # the listener is held while a worker is replaced


def subscribed(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, prefixes: Sequence[bytes]
) -> "zmq.Socket[bytes]":
    """
    Return a SUB on its way to an endpoint, which need not be there yet.

    At every attachment the prefixes are sent in lexical order: when a frame of ``state.`` arrives,
    ``data.`` is in force (xsub.cpp walks a trie).
    """
    socket = context.socket(zmq.SUB)
    for option, value in (
        (zmq.LINGER, 0),
        (zmq.RCVHWM, RCVHWM),
        (zmq.SNDHWM, 0),  # else more prefixes than that are not all sent again
        (zmq.RECONNECT_IVL, RECONNECT_MS),
        (zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS),
    ):
        socket.setsockopt(option, value)
    for prefix in prefixes:
        socket.setsockopt(zmq.SUBSCRIBE, prefix)
    socket.connect(endpoint)
    return socket
