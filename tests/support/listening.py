"""A subscriber written with nothing but pyzmq and struct, from docs/wire-format.md alone."""

import contextlib
import json
import struct
import threading
import time

import zmq

HEADER = struct.Struct("<HBBIQQqq")  # version kind flags epoch seq topic_seq wall_ns monotonic_ns


def split(frame):
    """Topic, header fields, payload of one frame."""
    end = frame.index(b"\0")
    body = end + 1 + HEADER.size
    return frame[:end].decode("ascii"), HEADER.unpack(frame[end + 1 : body]), frame[body:]


class Listener(threading.Thread):
    """Gathers every frame of some endpoints, with the moment it came."""

    def __init__(self, endpoints, prefixes=(b"",)):
        super().__init__(daemon=True)
        self.frames = []
        self._stop_asked = threading.Event()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.RCVHWM, 0),
            (zmq.SNDHWM, 0),
            (zmq.RECONNECT_IVL, 1),
            (zmq.RECONNECT_IVL_MAX, 100),
        ):
            self._socket.setsockopt(option, value)
        for prefix in prefixes:
            self._socket.subscribe(prefix)
        monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        for endpoint in endpoints:
            self._socket.connect(endpoint)
        for _ in endpoints:
            assert monitor.poll(20_000), f"no handshake with each of {endpoints}"
            monitor.recv_multipart()
        self._socket.disable_monitor()
        monitor.close(0)
        time.sleep(0.1)  # the subscriptions follow the handshake, and nobody answers them

    def run(self):
        while not self._stop_asked.is_set():
            if self._socket.poll(50):
                with contextlib.suppress(zmq.Again):
                    while True:
                        self.frames.append((time.monotonic_ns(), self._socket.recv(zmq.DONTWAIT)))
        self._socket.close()
        self._context.term()

    def stop(self):
        self._stop_asked.set()
        self.join(10)

    def data(self):
        """The data messages so far: (topic, header, payload)."""
        found = [split(frame) for _, frame in list(self.frames)]
        return [message for message in found if message[1][1] == 1]

    def events(self, connection=None):
        """The events so far, as their JSON documents, with ``heard_ns``."""
        documents = []
        for heard_ns, frame in list(self.frames):
            _topic, header, payload = split(frame)
            if header[1] == 5:
                document = json.loads(payload) | {"heard_ns": heard_ns}
                if connection is None or document["connection"] == connection:
                    documents.append(document)
        return documents


@contextlib.contextmanager
def listening(endpoints, prefixes=(b"",)):
    listener = Listener(endpoints, prefixes)
    listener.start()
    try:
        yield listener
    finally:
        listener.stop()


def assert_gap_free(messages):
    """Sequence numbers go up by one, over epochs too."""
    seqs = [header[4] for _topic, header, _payload in messages]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
