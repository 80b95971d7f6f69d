"""``python -m bench.bare sockets`` and ``python -m bench.bare writes``: servers that push one frame, built before, to
everybody, and do nothing else.

``sockets`` is uvicorn's WebSocket with no framework on it, a frame a send. ``writes`` is the limit: writes to sockets
in a loop, with no WebSocket library, event loop or thread; it shakes hands by hand and reads nothing from then on.
Both have the doors ``WS /ws/chat/{thread_id}`` and ``POST /burst?count=N``, answered when the last socket was sent the
last frame; ``writes`` takes ``&at_once=K``, its frames a write. They listen until they are killed.
"""

import base64
import hashlib
import os
import re
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import uvicorn
from starlette.types import Receive, Scope, Send

from m3.events import Message
from m3.frames import new_message, text

Kind = Literal["sockets", "writes"]

#: What everybody is told, here and by the room.
SAID = "Is it far to the sea from where you are just now?"
WELCOME = '{"type":"connected"}'
#: Of WebSockets (RFC 6455).
HANDSHAKE = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BACKLOG = 2048
#: Milliseconds that a client may take to have room for more.
PATIENCE = 30_000


def frame() -> str:
    """A frame such as the room sends."""
    message = Message(
        id=1_000_000,
        message_id=UUID(int=0x01A202F7_0000_7000_8000_000000000000),
        thread_id="fan-out",
        seq=1000,
        role="assistant",
        content=SAID,
        source="assistant",
        timestamp=datetime.now(UTC),
        interface="http_api",
    )
    return text(new_message(message))


class Sockets:
    """An ASGI app."""

    def __init__(self) -> None:
        self._sends: dict[Send, None] = {}
        self._told = {"type": "websocket.send", "text": frame()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._burst(int(parse_qs(scope["query_string"])[b"count"][0]))
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        await receive()
        await send({"type": "websocket.accept"})
        self._sends[send] = None
        await send({"type": "websocket.send", "text": WELCOME})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        del self._sends[send]

    async def _burst(self, count: int) -> None:
        for _ in range(count):
            for send in tuple(self._sends):
                await send(self._told)


class Writes:
    """``os.write`` costs what ``socket.send`` does, and Linux counts it as a write."""

    def __init__(self) -> None:
        self._clients: dict[int, socket.socket] = {}
        self._frame = _framed(frame())

    def serve(self, listening: socket.socket) -> None:
        while True:
            client, _ = listening.accept()
            head = client.recv(64 * 1024).decode()  # of our own load maker, which writes it at once
            address = urlsplit(head.split()[1])
            if address.path == "/burst":
                asked = {name: int(values[0]) for name, values in parse_qs(address.query).items()}
                self._burst(asked["count"], asked["at_once"])
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                client.close()
            else:
                self._welcome(client, head)

    def _welcome(self, client: socket.socket, head: str) -> None:
        found = re.search(r"(?i)sec-websocket-key: *(\S+)", head)
        assert found, head
        accept = base64.b64encode(hashlib.sha1(found[1].encode() + HANDSHAKE).digest())
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n%b" % (accept, _framed(WELCOME))
        )
        client.setblocking(False)
        self._clients[client.fileno()] = client

    def _burst(self, count: int, at_once: int) -> None:
        data = self._frame * at_once
        size = len(data)
        for _ in range(count // at_once):
            for client in self._clients:
                try:
                    sent = os.write(client, data)
                except BlockingIOError:
                    sent = 0
                if sent < size:
                    _write_rest(client, data[sent:])


def _write_rest(client: int, data: bytes) -> None:
    """Wait for a client that has no room for more."""
    room = select.poll()
    room.register(client, select.POLLOUT)
    while data:
        assert room.poll(PATIENCE), "a client does not read"
        data = data[os.write(client, data) :]


def _framed(content: str) -> bytes:
    """The text as one frame of a WebSocket."""
    data = content.encode()
    head = bytes([0x81, len(data)]) if len(data) < 126 else b"\x81\x7e" + len(data).to_bytes(2, "big")
    return head + data


@dataclass
class Bare:
    """A running one."""

    address: str
    pid: int


@contextmanager
def bare(kind: Kind) -> Iterator[Bare]:
    """One in a process of its own."""
    with subprocess.Popen([sys.executable, "-m", "bench.bare", kind], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield Bare(process.stdout.readline().strip(), process.pid)
        finally:
            process.kill()  # it holds nothing


def _serve(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        if kind == "writes":
            Writes().serve(listening)
        config = uvicorn.Config(
            Sockets(), ws="websockets-sansio", ws_per_message_deflate=False, lifespan="off", log_level="warning"
        )
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    _serve(sys.argv[1])
