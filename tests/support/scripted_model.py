"""A model's server whose answers are a plain function of what it is asked, over real HTTP on loopback.

It writes its bytes itself, so that it can be as wrong as any server: a script returns one of the behaviours below.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

#: Writes an answer, or fails to.
Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]
#: From a request's JSON to what the server does about it.
Script = Callable[[dict[str, Any]], Behaviour]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def chat(self) -> list[tuple[str, str]]:
        """Each message's role and text."""
        return [(message["role"], message["content"]) for message in self.body["messages"]]


class ScriptedModel:
    """``url`` is its base URL, ``asked`` what it was asked so far, ``most_at_once`` its most requests at a time."""

    def __init__(self, script: Script) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self._script = script
        self._answering: set[asyncio.Task[None]] = set()
        self._mistakes: list[Exception] = []

    @property
    def prompts(self) -> list[str]:
        """The message that each request asks to answer."""
        return [prompt(asked.body) for asked in self.asked]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        self.most_at_once = max(self.most_at_once, len(self._answering))
        try:
            with suppress(OSError, asyncio.IncompleteReadError):  # the client went away
                asked = await _read(reader)
                self.asked.append(asked)
                await self._script(asked.body)(writer)
                await writer.drain()
        except Exception as mistake:  # noqa: BLE001  # the script's, kept for the test's own task
            self._mistakes.append(mistake)
        finally:
            self._answering.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def close(self) -> None:
        """Break off what is not answered yet. Raises what went wrong in the script."""
        for task in (answering := list(self._answering)):
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)
        if self._mistakes:
            raise self._mistakes[0]


@asynccontextmanager
async def scripted_model(script: Script) -> AsyncIterator[ScriptedModel]:
    """Serve the script inside the block."""
    model = ScriptedModel(script)
    server = await asyncio.start_server(model.answer, "127.0.0.1", 0)
    model.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield model
    finally:
        server.close()
        await model.close()
        await server.wait_closed()


def prompt(body: dict[str, Any]) -> str:
    """The text of the last message, which is the one to answer."""
    text: str = body["messages"][-1]["content"]
    return text


def says(content: object) -> Behaviour:
    """A completion with this content."""
    message = {"role": "assistant", "content": content}
    return completes(choices=[{"index": 0, "message": message, "finish_reason": "stop"}])


def completes(**fields: object) -> Behaviour:
    """A completion that has these fields, right or wrong."""
    completion = {"id": "scripted", "object": "chat.completion", "created": 0, "model": "scripted"}
    return answers(json.dumps(completion | fields))


def answers(
    body: str, status: int = 200, content_type: str = "application/json", headers: dict[str, str] | None = None
) -> Behaviour:
    """Any whole HTTP answer."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        content = body.encode()
        writer.write(_head(status, len(content), {"Content-Type": content_type} | (headers or {})) + content)

    return behave


def redirects(location: str) -> Behaviour:
    """To another place, with the request's method and body."""
    return answers("", 307, headers={"Location": location})


def holds(until: asyncio.Event, then: Behaviour) -> Behaviour:
    """Does nothing until the event, and then what it is told."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        await until.wait()
        await then(writer)

    return behave


def keeps_silent() -> Behaviour:
    """Takes the request and never answers."""
    return holds(asyncio.Event(), says("never"))


def drips() -> Behaviour:
    """Begins a good answer and goes on with one byte at a time, so that it is never silent for long."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(_head(200, 1_000_000, {"Content-Type": "application/json"}))
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    return behave


def hangs_up() -> Behaviour:
    """Closes the connection without a word."""

    async def behave(_: asyncio.StreamWriter) -> None:
        pass

    return behave


def breaks_off() -> Behaviour:
    """Cuts the connection in the middle of a good answer."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(_head(200, 1_000, {"Content-Type": "application/json"}) + b'{"id": "scr')
        await writer.drain()
        writer.transport.abort()

    return behave


async def _read(reader: asyncio.StreamReader) -> Asked:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(path=first.split(" ")[1], headers=headers, body=json.loads(body or b"{}"))


def _head(status: int, length: int, headers: dict[str, str]) -> bytes:
    fields = headers | {"Content-Length": str(length), "Connection": "close"}
    return "\r\n".join(
        [f"HTTP/1.1 {status} Scripted", *(f"{name}: {fields[name]}" for name in fields), "", ""]
    ).encode()
