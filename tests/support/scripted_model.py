"""A model's server whose answers are a plain function of what it is asked, over real HTTP on loopback.

It writes its bytes itself, so that it can be as wrong as any server: a script returns one of the behaviours below.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
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

    @property
    def streamed(self) -> bool:
        """Whether the answer is to come piece by piece."""
        return self.body.get("stream") is True

    @property
    def counted(self) -> bool:
        """Whether the answer's tokens are to be told at its end."""
        return bool((self.body.get("stream_options") or {}).get("include_usage"))


#: The request that a behaviour answers, for those that answer it as it asks.
_asked: ContextVar[Asked] = ContextVar("asked")


class ScriptedModel:
    """``url`` is its base URL, ``asked`` what it was asked so far, ``most_at_once`` its most requests at a time, and
    ``broken_off`` how many answers their clients did not hear out."""

    def __init__(self, script: Script) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self.broken_off = 0
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
                _asked.set(asked)
                await self._behave(self._script(asked.body), reader, writer)
        except Exception as mistake:  # noqa: BLE001  # the script's, kept for the test's own task
            self._mistakes.append(mistake)
        finally:
            self._answering.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _behave(self, behaviour: Behaviour, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer, as long as the client listens."""
        behaving = asyncio.ensure_future(_write(behaviour, writer))
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({behaving, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if behaving.done():
                behaving.result()
            else:
                self.broken_off += 1
        except OSError:
            self.broken_off += 1
        finally:
            for task in (behaving, leaving):
                task.cancel()
            await asyncio.gather(behaving, leaving, return_exceptions=True)

    async def close(self) -> None:
        """Break off what is not answered yet. Raises what went wrong in the script."""
        for task in (answering := list(self._answering)):
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)
        if self._mistakes:
            raise self._mistakes[0]


@asynccontextmanager
async def scripted_model(script: Script, host: str = "127.0.0.1") -> AsyncIterator[ScriptedModel]:
    """Serve the script inside the block."""
    model = ScriptedModel(script)
    server = await asyncio.start_server(model.answer, host, 0)
    model.url = f"http://{host}:{server.sockets[0].getsockname()[1]}/v1"
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


def in_turn(*behaviours: Behaviour) -> Script:
    """One behaviour for each request in the order they come, and the last one from then on."""
    left = list(behaviours)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def says(content: object) -> Behaviour:
    """A completion with this content, in pieces where it is asked for as a stream."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        if _asked.get().streamed:
            answer = streams(*(_pieces(content) if isinstance(content, str) else [{"content": content}]))
        else:
            message = {"role": "assistant", "content": content}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            answer = completes(choices=[choice], usage=_usage(content))
        await answer(writer)

    return behave


def streams(
    *pieces: str | dict[str, object], pause: float = 0.0, end: str | None = "stop", usage: bool = True
) -> Behaviour:
    """A stream of these texts, or deltas of any kind, with ``end`` as its finish_reason, and none if that is None.

    ``usage`` tells whether it counts tokens, where it is asked to.
    """

    async def behave(writer: asyncio.StreamWriter) -> None:
        await _begin_stream(writer, pieces, pause)
        if end is not None:
            await _send(writer, _chunk({}, end))
        if usage and _asked.get().counted:
            said = "".join(piece for piece in pieces if isinstance(piece, str))
            await _send(writer, _envelope(choices=[], usage=_usage(said)))
        await _send(writer, "[DONE]")
        await _send_bytes(writer, b"")

    return behave


def streams_until(event: asyncio.Event, *pieces: str | dict[str, object], then: str = "") -> Behaviour:
    """A stream that has these pieces, nothing more until the event, and then one more and a good end."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        await _begin_stream(writer, pieces)
        await event.wait()
        await _send(writer, _chunk({"content": then}))
        await _send(writer, _chunk({}, "stop"))
        await _send(writer, "[DONE]")
        await _send_bytes(writer, b"")

    return behave


def streams_events(*events: object, content_type: str = "text/event-stream") -> Behaviour:
    """A stream of any events, right or wrong: texts as they are, else as JSON."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(_head(200, None, {"Content-Type": content_type}))
        for event in events:
            await _send(writer, event)
        await _send_bytes(writer, b"")

    return behave


def streams_and_breaks_off(*pieces: str | dict[str, object], end: str | None = None) -> Behaviour:
    """Cuts the connection when it has sent these pieces."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        await _begin_stream(writer, pieces)
        if end is not None:
            await _send(writer, _chunk({}, end))
        writer.transport.abort()

    return behave


def streams_and_lingers(*pieces: str | dict[str, object]) -> Behaviour:
    """A stream with these pieces and a good end, that is left open all the same."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        await _begin_stream(writer, pieces)
        await _send(writer, _chunk({}, "stop"))
        await asyncio.Event().wait()

    return behave


def streams_without_end(piece: bytes, content_type: str = "text/event-stream") -> Behaviour:
    """The same bytes again and again, as fast as the client reads them."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(_head(200, None, {"Content-Type": content_type}))
        while True:
            await _send_bytes(writer, piece)

    return behave


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


async def _write(behaviour: Behaviour, writer: asyncio.StreamWriter) -> None:
    await behaviour(writer)
    if not writer.is_closing():  # where the behaviour has cut the connection
        await writer.drain()


async def _begin_stream(
    writer: asyncio.StreamWriter, pieces: Sequence[str | dict[str, object]], pause: float = 0.0
) -> None:
    writer.write(_head(200, None, {"Content-Type": "text/event-stream"}))
    await _send(writer, _chunk({"role": "assistant", "content": ""}))
    for piece in pieces:
        await _send(writer, _chunk({"content": piece} if isinstance(piece, str) else piece))
        await asyncio.sleep(pause)


async def _send(writer: asyncio.StreamWriter, event: object) -> None:
    data = event if isinstance(event, str) else json.dumps(event)
    await _send_bytes(writer, f"data: {data}\n\n".encode())


async def _send_bytes(writer: asyncio.StreamWriter, content: bytes) -> None:
    """One chunk of a body without a length; none ends it."""
    writer.write(b"%x\r\n%b\r\n" % (len(content), content))
    await writer.drain()


def _chunk(delta: dict[str, object], finish_reason: str | None = None) -> dict[str, object]:
    return _envelope(choices=[{"index": 0, "delta": delta, "finish_reason": finish_reason}])


def _envelope(**fields: object) -> dict[str, object]:
    return {"id": "scripted", "object": "chat.completion.chunk", "created": 0, "model": "scripted"} | fields


def _pieces(text: str) -> list[str]:
    """The text in a few pieces."""
    size = len(text) // 5 + 1
    return [text[start : start + size] for start in range(0, len(text), size)]


def _usage(said: object) -> dict[str, int]:
    """To this model every word is a token."""
    prompt = sum(len(text.split()) for _, text in _asked.get().chat)
    completion = len(said.split()) if isinstance(said, str) else 0
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def _read(reader: asyncio.StreamReader) -> Asked:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(path=first.split(" ")[1], headers=headers, body=json.loads(body or b"{}"))


def _head(status: int, length: int | None, headers: dict[str, str]) -> bytes:
    body = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    fields = headers | body | {"Connection": "close"}
    return "\r\n".join(
        [f"HTTP/1.1 {status} Scripted", *(f"{name}: {fields[name]}" for name in fields), "", ""]
    ).encode()
