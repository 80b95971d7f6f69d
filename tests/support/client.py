"""What a client of the room does: post, read, and listen on a socket."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlencode

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.datastructures import HeadersLike
from websockets.exceptions import ConnectionClosed

from tests.support.until import DEADLINE

#: Frames that may come between any others: only who asks for them by name is given them.
AT_ANY_TIME = {"presence", "typing"}


class Socket:
    """A listening client that keeps every frame it was sent."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.frames: list[dict[str, Any]] = []

    async def next(self, kind: str | None = None) -> dict[str, Any]:
        """The next frame, or the next one of a type."""
        async with asyncio.timeout(DEADLINE):
            while True:
                frame: dict[str, Any] = json.loads(await self._connection.recv())
                self.frames.append(frame)
                if frame["type"] == kind or (kind is None and frame["type"] not in AT_ANY_TIME):
                    return frame

    async def messages(self, count: int) -> list[dict[str, Any]]:
        """The next so many ``new_message`` frames."""
        return [await self.next("new_message") for _ in range(count)]

    async def send(self, text: str) -> None:
        await self._connection.send(text)

    async def say(self, message: str, source: str = "user", **fields: str) -> dict[str, Any]:
        """Send a message and wait until it is recorded."""
        await self.send(json.dumps({"type": "message", "message": message, "source": source, **fields}))
        return await self.next("recorded")

    async def closed(self) -> int | None:
        """Wait until it is closed; returns the code."""
        async with asyncio.timeout(DEADLINE):
            with suppress(ConnectionClosed):
                while True:
                    await self.next()
        return self._connection.close_code

    async def hears_nothing(self) -> bool:
        """Whether nothing waits: the answer to a ping is the next frame."""
        await self.send("ping")
        return bool((await self.next())["type"] == "pong")


@asynccontextmanager
async def socket(
    address: str, thread_id: str, headers: HeadersLike | None = None, /, **query: str | int
) -> AsyncIterator[Socket]:
    """A socket of a thread, from its opening handshake on. Raises InvalidStatus where it is refused."""
    path = f"{thread_id}?{urlencode(query)}" if query else thread_id
    url = f"{address.replace('http', 'ws', 1)}/ws/chat/{path}"
    # A client that stops reading at a bound, which is usual, does not read the answer to its closing either, and waits 10 s.
    async with connect(url, additional_headers=headers, max_queue=None) as connection:
        yield Socket(connection)


@asynccontextmanager
async def client(address: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=address, timeout=DEADLINE) as http:
        yield http


class Stream:
    """An event stream as it comes in."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> tuple[str, dict[str, Any]] | None:
        """The next event's name and data, or None at the end. Comments are passed over."""
        event = await self.event()
        return None if event is None else (event["event"], json.loads(event["data"]))

    async def event(self) -> dict[str, str] | None:
        """The next event's fields."""
        while (block := await self.block()) is not None:
            if fields := dict(line.split(": ", 1) for line in block if not line.startswith(":")):
                return fields
        return None

    async def block(self) -> list[str] | None:
        """The lines up to the next empty one."""
        lines: list[str] = []
        async with asyncio.timeout(DEADLINE):
            async for line in self._lines:
                if not line:
                    return lines
                lines.append(line)
        return None

    async def rest(self) -> list[tuple[str, dict[str, Any]]]:
        """All events up to the end."""
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
        return events


@asynccontextmanager
async def streaming(
    http: httpx2.AsyncClient, message: str, headers: dict[str, str] | None = None, **fields: str
) -> AsyncIterator[Stream]:
    """Say something and read the answer event by event."""
    accept = {"Accept": "text/event-stream"} | (headers or {})
    async with http.stream("POST", "/api/chat", json={"message": message, **fields}, headers=accept) as response:
        yield Stream(response)


async def post(http: httpx2.AsyncClient, message: str, **fields: str) -> dict[str, Any]:
    """Say something and get the reply's body."""
    response = await http.post("/api/chat", json={"message": message, **fields})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def history(http: httpx2.AsyncClient, thread_id: str) -> list[dict[str, Any]]:
    response = await http.get(f"/api/threads/{thread_id}/history", params={"limit": 500})
    assert response.status_code == 200, response.text
    messages: list[dict[str, Any]] = response.json()["messages"]
    return messages
