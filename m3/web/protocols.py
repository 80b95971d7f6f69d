"""uvicorn's protocols, where no app is reached: they bound what it does not bound and answer what it leaves unanswered.

They override methods of uvicorn's classes that it does not promise to keep: look here when it is upgraded. The tests
in tests/integration/test_bad_input.py tell.
"""

import asyncio
import socket
import struct
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.http11 import Request as Handshake
from websockets.server import ServerProtocol

from m3.web.browsers import SAFE_HEADERS
from m3.web.errors import Refusal
from m3.web.raw_frames import EXTENSION

#: Longest head of a request, which is its first line and its headers, in bytes.
MAX_HEAD = 64 * 1024
#: Seconds in which the head of a request must arrive, from the connection or the request's first byte on.
HEAD_TIMEOUT = 10.0
#: Seconds in which a client must take some of what waits for it. Generous, since the system tells of what was taken in
#: large steps. Two times as many may pass until it is noticed.
TAKE_TIMEOUT = 20.0
#: Seconds in which a socket that was closed must have taken what it was sent.
CLOSE_TIMEOUT = 5.0


class BoundedHttp(HttpToolsProtocol):
    """Bounds the head of a request and how long an answer is left unread, and gives what is no request an answer in the
    one shape. uvicorn does none of that."""

    _deadline: asyncio.TimerHandle | None = None  # for the head that is being read
    _look: asyncio.TimerHandle | None = None  # at what the client takes
    _untaken = 0  # bytes that waited for the client at the last look, if none can have been added since
    _held = 0  # bytes that the parser took since it last gave something: an unfinished head, or what follows a body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._await_head()
        self._look_again()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self.cycle is None or self.cycle.response_complete:
            self._await_head()  # otherwise the head may wait behind another request, and not for its client

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        self._untaken = 0
        super().resume_writing()

    def handle_websocket_upgrade(self) -> None:
        self._stop_watching()
        super().handle_websocket_upgrade()

    def _stop_watching(self) -> None:
        """A timer would keep the whole protocol alive."""
        self._head_is_here()
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _look_again(self) -> None:
        self._look = self.loop.call_later(TAKE_TIMEOUT, self._look_at_taking)

    def _look_at_taking(self) -> None:
        """Cut off who does not read: closing would wait for them for ever, and so would an app that goes on writing."""
        no_more_comes = self.flow.write_paused or self.transport.is_closing()
        untaken = self.transport.get_write_buffer_size() if no_more_comes else 0
        if 0 < self._untaken <= untaken:
            self._cut_off()
            return
        self._untaken = untaken
        self._look_again()

    def _cut_off(self) -> None:
        """Reset the connection, or the system would go on holding what it has for the client."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._held += len(data)
        super().data_received(data)
        if self._held > MAX_HEAD:
            _refuse(self.transport, _head_too_long())

    def on_body(self, body: bytes) -> None:
        self._held = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        self._held = 0
        self._head_is_here()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD:
            _refuse(self.transport, _head_too_long())
            raise ValueError("head too long")  # ends the parsing
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._head_is_here()
        self._deadline = self.loop.call_later(HEAD_TIMEOUT, _refuse, self.transport, _head_too_slow())

    def _head_is_here(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def send_400_response(self, msg: str) -> None:
        _refuse(self.transport, Refusal(400, "malformed_request", msg))


def _head_too_slow() -> Refusal:
    return Refusal(408, "head_too_slow", f"The request's head did not arrive within {HEAD_TIMEOUT:g} seconds.")


def _head_too_long() -> Refusal:
    return Refusal(431, "head_too_long", f"The request's head is longer than {MAX_HEAD} bytes.")


class RoomSockets(WebSocketsSansIOProtocol):
    """Answers every handshake that fails, and in the one shape; uvicorn leaves some without an answer. And lets the app
    write frames of its own making."""

    _end: asyncio.TimerHandle | None = None
    _silent = False  # whether a ping was not answered in time

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.queue = _Received()  # type: ignore[assignment]  # it has what uvicorn asks of a queue

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated:  # its whole head was in the data, and could not be parsed
            _refuse(self.transport, Refusal(400, "bad_handshake", "This is not a WebSocket handshake."))

    async def run_asgi(self) -> None:
        await super().run_asgi()
        self._end_soon()  # the app is done with the socket

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._silent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1011})  # uvicorn does not tell the app
        self._end_soon()

    def close(self, code: int, reason: str) -> None:
        """As the app's ``websocket.close``, but without waiting."""
        if self.close_sent or self.transport.is_closing():
            return
        try:
            self.conn.send_close(code, reason)
        except InvalidState:  # the client closes just now
            return
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(CLOSE_TIMEOUT, self.transport.close)
        self._end_soon()

    def _end_soon(self) -> None:
        """One that does not read would keep what it was not yet told for ever."""
        self._end = self._end or self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)

    def handle_connect(self, event: Handshake) -> None:
        response = ServerProtocol().accept(event)
        if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            super().handle_connect(event)
            extensions: dict[str, object] = self.scope["extensions"]  # type: ignore[assignment]  # uvicorn's are dicts
            extensions[EXTENSION] = _RawFrames(self)
        else:
            _refuse(self.transport, Refusal(response.status_code, "bad_handshake", response.body.decode().strip()))

    async def send(self, message: Any) -> None:
        if self._silent:
            raise ClientDisconnected  # and not that nothing may follow a close, of which the app does not know yet
        if message["type"] == "websocket.http.response.start":
            message["headers"] = [*message["headers"], *SAFE_HEADERS]
        await super().send(message)
        if message["type"] == "websocket.accept":
            self.request.headers.clear()  # which may have a credential; the parser keeps them as long as the socket
            del self.request, self.response  # with their headers, a fifth of what an open socket takes
            self.scope["headers"] = []
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # otherwise uvicorn logs an error for every refusal


class _Received:
    """What the app has not asked for yet, which is little, and which one task takes. An asyncio.Queue takes 3 KiB of
    each open socket even when it is empty."""

    __slots__ = ("_arrived", "_events")

    def __init__(self) -> None:
        self._events: list[Any] = []
        self._arrived: asyncio.Future[None] | None = None

    def empty(self) -> bool:
        return not self._events

    def put_nowait(self, event: Any) -> None:
        self._events.append(event)
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def get(self) -> Any:
        while not self._events:
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        return self._events.pop(0)


class _RawFrames:
    """The FrameWriter of a socket."""

    __slots__ = ("_socket",)

    def __init__(self, socket: RoomSockets) -> None:
        self._socket = socket

    @property
    def unsent(self) -> int:
        return self._socket.transport.get_write_buffer_size()

    def write(self, frames: bytes) -> None:
        socket = self._socket
        if not (socket.close_sent or socket.transport.is_closing()):
            socket.transport.write(frames)

    async def drain(self) -> None:
        await self._socket.writable.wait()

    def close(self, code: int, reason: str) -> None:
        self._socket.close(code, reason)


def _refuse(transport: asyncio.Transport, refusal: Refusal) -> None:
    """Answer where no app does."""
    if transport.is_closing():  # it has its answer
        return
    refusal.headers["Connection"] = "close"
    response = refusal.response()
    head = [f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}".encode()]
    head += [name + b": " + value for name, value in (*response.raw_headers, *SAFE_HEADERS)]
    transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
    transport.close()
