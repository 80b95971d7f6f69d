"""``text/event-stream``: an answer that is told event by event."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.types import Receive, Send

from m3.tasks import background

MEDIA_TYPE = "text/event-stream"
#: No cache keeps it, and no proxy gathers it up.
HEADERS = {"Content-Type": f"{MEDIA_TYPE}; charset=utf-8", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}

#: Tells an event: its name, its data on one line, and its id if it has one.
Tell = Callable[[str, str, str | None], Awaitable[None]]


class _Gone(Exception):
    """The client went away."""


@asynccontextmanager
async def event_stream(receive: Receive, send: Send, ping_interval: float) -> AsyncIterator[Tell]:
    """Answer a request with the events that are told inside the block, which is broken off when the client goes away.
    The server cuts off one that does not read, which is the same here.

    After every ``ping_interval`` seconds comes a comment, so that nobody on the way takes the connection for dead.
    """

    async def write(chunk: str) -> None:
        await send({"type": "http.response.body", "body": chunk.encode(), "more_body": True})

    async def tell(name: str, data: str, event_id: str | None = None) -> None:
        numbered = "" if event_id is None else f"id: {event_id}\n"
        await write(f"event: {name}\n{numbered}data: {data}\n\n")

    async def ping() -> None:
        while True:
            await asyncio.sleep(ping_interval)
            await write(": \n\n")

    async def leave() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        raise _Gone

    headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    try:
        async with background("pings of an event stream", ping()), background("client of an event stream", leave()):
            yield tell
    except* _Gone:  # also where several noticed
        pass
    await send({"type": "http.response.body", "body": b""})
