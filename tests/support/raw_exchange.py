"""An exchange written frame by frame, for faults that no proper server commits."""

import asyncio
import base64
import contextlib
import hashlib
import os
import socket
import struct

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode, payload=b"", *, fin=True, rsv=0):
    """Return an unmasked frame (RFC 6455 section 5.2)."""
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 1 << 16:
        return head + b"\x7e" + struct.pack(">H", len(payload)) + payload
    return head + b"\x7f" + struct.pack(">Q", len(payload)) + payload


class Peer:
    """One client's socket, seen from the exchange."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.request = b""

    async def handshake(self, headers=b""):
        self.request = await self.reader.readuntil(b"\r\n\r\n")
        lines = self.request.split(b"\r\n")
        (key,) = [
            line.split(b":")[1].strip()
            for line in lines
            if line.lower().startswith(b"sec-websocket-key")
        ]
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        self.writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n" + headers + b"\r\n"
        )

    def send(self, opcode, payload=b"", **keys):
        self.writer.write(frame(opcode, payload, **keys))

    async def receive(self):
        """Return opcode and payload of the next frame; they come masked and whole."""
        head = await self.reader.readexactly(2)
        length = head[1] & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", await self.reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", await self.reader.readexactly(8))
        mask = await self.reader.readexactly(4)
        masked = await self.reader.readexactly(length)
        pad = (mask * (length // 4 + 1))[:length]
        unmasked = int.from_bytes(masked, "big") ^ int.from_bytes(pad, "big")
        return head[0] & 0x0F, unmasked.to_bytes(length, "big")

    async def until(self, opcode):
        """Return the payload of the next frame of that opcode."""
        while True:
            found, payload = await self.receive()
            if found == opcode:
                return payload

    async def gone(self):
        """Wait for the client's end of stream or reset."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def reset(self):
        """End with RST instead of FIN."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


async def hold(peer):
    """Answer PING frames until a CLOSE, which is answered, too: a script of ``RawExchange``."""
    while True:
        opcode, payload = await peer.receive()
        if opcode == PING:
            peer.send(PONG, payload)
        elif opcode == CLOSE:
            peer.send(CLOSE, payload)
            return


class RawExchange:
    """Runs ``script(peer)`` for each client; counts the sockets it holds."""

    def __init__(self, script, *, handshake=True, context=None):
        self._script, self._handshake, self._context = script, handshake, context
        self.open = self.accepted = 0
        self.peers = []
        self.failures = []
        self.tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        scheme, host = ("wss", "localhost") if self._context else ("ws", "127.0.0.1")
        self.url = f"{scheme}://{host}:{self.port}/ws"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        # A client accepted just now becomes a peer some turns later.
        while accepting := [task for task in asyncio.all_tasks() if is_accepting(task)]:
            await asyncio.wait(accepting)
        await asyncio.sleep(0.02)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for peer in self.peers:  # here too: a task that was cancelled before its first step
            peer.writer.transport.abort()
        for peer in self.peers:  # an aborted transport closes its socket a turn later
            with contextlib.suppress(OSError):
                await peer.writer.wait_closed()
        await self._server.wait_closed()
        if self.failures:
            raise self.failures[0]

    def _accept(self, reader, writer):
        # No coroutine: asyncio would make a task of it that nobody knows before its first step.
        self.open += 1
        self.accepted += 1
        peer = Peer(reader, writer)
        self.peers.append(peer)
        task = asyncio.get_running_loop().create_task(self._serve(peer))
        self.tasks.add(task)
        task.add_done_callback(self._gone)

    def _gone(self, task):
        self.open -= 1
        self.tasks.discard(task)

    async def _serve(self, peer):
        try:
            if self._handshake:
                await peer.handshake()
            await self._script(peer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except Exception as error:  # told by __aexit__: a task's exception would be lost
            self.failures.append(error)
        finally:
            peer.writer.transport.abort()


def is_accepting(task):
    """Return whether a task of asyncio's makes a transport of a socket just accepted."""
    return "_accept_connection" in getattr(task.get_coro(), "__qualname__", "")


def open_descriptors():
    """Return how many descriptors this process holds."""
    return len(os.listdir("/proc/self/fd"))
