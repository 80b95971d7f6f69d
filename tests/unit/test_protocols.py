"""Who reads slowly is heard out, and who does not read is cut off, however long it takes."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from m3.web.protocols import BoundedHttp
from tests.support.until import until


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """An app."""


class Transport(asyncio.Transport):
    """``unsent``: how many bytes wait, look by look; ``looks``: how often it was asked. ``makes_room``: whether the client
    takes something after each look, upon which more is written."""

    def __init__(self, unsent: Iterable[int], *, closing: bool = False, makes_room: bool = False) -> None:
        super().__init__()
        self.looks = 0
        self.aborted = False
        self._unsent = iter(unsent)
        self._closing = closing
        self._makes_room = makes_room

    def get_write_buffer_size(self) -> int:
        self.looks += 1
        if self._makes_room:
            self.protocol.resume_writing()
            self.protocol.pause_writing()
        return next(self._unsent, 0)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return Socket() if name == "socket" else default

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def connect(self) -> BoundedHttp:
        self.protocol = BoundedHttp(Config(nothing, log_config=None), ServerState(), {})
        self.protocol.connection_made(self)
        return self.protocol


class Socket:
    def getpeername(self) -> tuple[str, int]:
        return "127.0.0.1", 1

    getsockname = getpeername

    def setsockopt(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3.web.protocols.TAKE_TIMEOUT", 0.001)


@pytest.mark.parametrize("closing", [False, True])
async def test_who_takes_nothing_is_cut_off(*, closing: bool) -> None:
    transport = Transport([9, 8, 8], closing=closing)
    connection = transport.connect()
    if not closing:
        connection.pause_writing()
    await until(lambda: transport.aborted)
    assert transport.looks == 3


@pytest.mark.parametrize("closing", [False, True])
async def test_who_takes_a_little_each_time_is_not(*, closing: bool) -> None:
    transport = Transport(range(20, -1, -1), closing=closing)
    connection = transport.connect()
    if not closing:
        connection.pause_writing()
    await until(lambda: transport.looks > 20)
    assert not transport.aborted
    connection.connection_lost(None)


async def test_who_makes_room_again_and_again_is_not() -> None:
    """As much may wait at each look, and be something else each time."""
    transport = Transport([9] * 20, makes_room=True)
    connection = transport.connect()
    connection.pause_writing()
    await until(lambda: transport.looks > 20)
    assert not transport.aborted
    connection.connection_lost(None)
