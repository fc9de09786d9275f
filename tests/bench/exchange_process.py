"""The exchange of the bench: a process of its own that sends frames made beforehand.

    python -m bench.exchange_process [--tls CERTIFICATE KEY]

One thread and blocking sockets, so that it is never what a client waits for. It takes orders as
lines of JSON on stdin and answers each with one on stdout. During a ``go`` nobody else is served.
A run ends with a PING on each of its sessions: the PONGs say that all before them has been read.
"""

import argparse
import base64
import contextlib
import hashlib
import json
import os
import selectors
import socket
import ssl
import sys
import time
from array import array
from pathlib import Path

from bench import traffic
from bench.probes import wake_on_time

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
PING_FRAME = b"\x89\x03end"
CLOSE, PING, PONG = 0x8, 0x9, 0xA
HANDSHAKE_S, PONG_S = 5.0, 30.0
CHUNK = 1 << 18
AHEAD_NS = 2_000_000
STREAMED = b'\x81\x34{"session":%08d,"number":%010d,"e":"trade"}'  # 52 bytes of payload


class Session:
    """A client: its socket, the path it asked for, and what of a frame has come."""

    def __init__(self, connection: socket.socket, number: int) -> None:
        connection.settimeout(HANDSHAKE_S)
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            more = connection.recv(4096)
            if not more:
                raise ConnectionError
            request += more
        fields = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:] if b": " in line)
        (key,) = (value for name, value in fields.items() if name.lower() == b"sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1(key.strip() + GUID).digest())
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        connection.settimeout(PONG_S)
        self.connection, self.tag = connection, request.split()[1].decode().strip("/")
        self.number, self.pongs, self._streamed, self._buffer = number, 0, 0, b""

    def stream(self) -> None:
        """Send the next message of its own stream."""
        self._streamed += 1
        self.connection.sendall(STREAMED % (self.number, self._streamed))

    def take(self) -> None:
        """Read what is there and answer it. Raises ConnectionError at the end."""
        data = self.connection.recv(65536)
        if not data:
            raise ConnectionError
        self._buffer += data
        while (frame := self._frame()) is not None:
            opcode, payload = frame
            if opcode == PING:
                self.connection.sendall(bytes((0x80 | PONG, len(payload))) + payload)
            elif opcode == PONG:
                self.pongs += 1
            elif opcode == CLOSE:
                self.connection.sendall(bytes((0x80 | CLOSE, len(payload))) + payload)
                raise ConnectionError

    def _frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 6:
            return None
        size, at = buffer[1] & 0x7F, 2
        if size == 126:
            size, at = int.from_bytes(buffer[2:4], "big"), 4
        whole = at + 4 + size
        if len(buffer) < whole:
            return None
        mask, masked = buffer[at : at + 4], buffer[at + 4 : whole]
        self._buffer = buffer[whole:]
        return buffer[0] & 0x0F, bytes(byte ^ mask[n % 4] for n, byte in enumerate(masked))


class Exchange:
    """All sessions, and the orders."""

    def __init__(self, tls: tuple[str, str] | None) -> None:
        self._context = None
        if tls is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*tls)
        self._sessions: list[Session] = []
        self._accepted = 0
        self._frames: dict[str, list[bytes]] = {}
        self._interval_ns = self._due_ns = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(0, selectors.EVENT_READ)
        self._orders = b""
        print(json.dumps({"port": self._listener.getsockname()[1]}), flush=True)

    def run(self) -> None:
        """Serve until stdin ends."""
        while True:
            wait_s = None
            if self._interval_ns:
                wait_s = max(0, self._due_ns - time.monotonic_ns()) / 1e9
            for key, _ in self._selector.select(wait_s):
                if key.fd == 0:
                    data = os.read(0, 65536)
                    if not data:
                        return
                    *orders, self._orders = (self._orders + data).split(b"\n")
                    for order in orders:
                        print(json.dumps(self.obey(json.loads(order))), flush=True)
                elif key.fileobj is self._listener:
                    self._accept()
                else:
                    self._guarded(key.data, key.data.take)
            self._stream()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self._context is not None:
                connection.settimeout(HANDSHAKE_S)
                connection = self._context.wrap_socket(connection, server_side=True)
            self._accepted += 1
            session = Session(connection, self._accepted)
        except (OSError, ValueError):
            connection.close()
            return
        self._sessions.append(session)
        self._selector.register(connection, selectors.EVENT_READ, session)

    def _guarded(self, session: Session, call) -> None:
        try:
            call()
        except OSError:
            self._sessions.remove(session)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(session.connection)
            session.connection.close()

    def _stream(self) -> None:
        now_ns = time.monotonic_ns()
        while self._interval_ns and self._due_ns <= now_ns:
            self._due_ns += self._interval_ns
            for session in list(self._sessions):
                self._guarded(session, session.stream)

    def obey(self, order: dict) -> dict:
        """Carry out one order and return the answer."""
        if order["do"] == "sessions":
            tags = [session.tag for session in self._sessions]
            return {"tags": tags}
        if order["do"] == "stream":
            self._interval_ns = int(1e9 / order["rate"]) if order["rate"] else 0
            self._due_ns = time.monotonic_ns()
            return {}
        by_tag = {session.tag: session for session in self._sessions}
        missing = [tag for tag in order["tags"] if tag not in by_tag]
        if missing:
            return {"error": f"no session of {', '.join(missing)}"}
        return self._go(order, [by_tag[tag] for tag in order["tags"]])

    def _go(self, order: dict, sessions: list[Session]) -> dict:
        frames = self._encoded(order["traffic"])
        count, burst = order["count"], order["burst"]
        began_ns = time.monotonic_ns()
        try:
            if order["rate"]:
                began_ns, late_ns = self._paced(sessions, frames, order)
            else:
                late_ns = 0
                whole = b"".join(frames)
                for _ in range(count // len(frames)):
                    for at in range(0, len(whole), CHUNK):
                        sessions[0].connection.sendall(whole[at : at + CHUNK])
                count = count // len(frames) * len(frames)
            sent_ns = time.monotonic_ns()
            wanted = [session.pongs + 1 for session in sessions]
            for session in sessions:
                session.connection.sendall(PING_FRAME)
            for session, pongs in zip(sessions, wanted, strict=True):
                while session.pongs < pongs:
                    session.take()
        except OSError as error:
            return {"error": f"a session ended during the run: {error!r}"}
        took_ns = time.monotonic_ns() - began_ns
        sent = count // burst * burst if order["rate"] else count
        return {"sent": sent, "took_ns": took_ns, "send_ns": sent_ns - began_ns, "late_ns": late_ns}

    def _paced(self, sessions: list[Session], frames: list[bytes], order: dict) -> tuple[int, int]:
        """Send by an absolute timetable, sessions in turns; return begin and median lateness."""
        burst = order["burst"]
        chunks = traffic.batched(frames, burst)
        sends = [session.connection.sendall for session in sessions]
        interval_ns, writes = 1e9 * burst / order["rate"], order["count"] // burst
        stamps = array("q", bytes(8 * writes))
        monotonic_ns, sleep = time.monotonic_ns, time.sleep
        chunk_count, send_count = len(chunks), len(sends)
        began_ns = monotonic_ns() + AHEAD_NS
        for number in range(writes):
            due_ns = began_ns + int(number * interval_ns)
            early_ns = due_ns - monotonic_ns()
            if early_ns > 0:
                sleep(early_ns / 1e9)
            stamps[number] = monotonic_ns()
            sends[number % send_count](chunks[number % chunk_count])
        if order.get("stamps"):
            Path(order["stamps"]).write_bytes(stamps.tobytes())
        late = sorted(at - began_ns - int(n * interval_ns) for n, at in enumerate(stamps))
        return began_ns, late[len(late) // 2]

    def _encoded(self, wanted: dict) -> list[bytes]:
        key = json.dumps(wanted)
        if key not in self._frames:
            if "recording" in wanted:
                with Path(wanted["recording"]).open(errors="replace") as lines:
                    messages = traffic.recorded(lines)
            elif "size" in wanted:
                messages = traffic.sized(wanted["size"])
            else:
                messages = traffic.mixed(wanted["seed"])
            self._frames[key] = [traffic.encoded(message) for message in messages]
        return self._frames[key]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"))
    wake_on_time()
    Exchange(parser.parse_args().tls).run()


if __name__ == "__main__":
    sys.exit(main())
