"""The least client of AMQP that there can be, so that the broker is measured and not its client.

What is said seldom goes through pamqp; what is said for each message is written and read as bytes.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from pamqp import body, commands, frame, header
from pamqp.common import FieldTable

from m3.tasks import background

#: Seconds that the broker may take for any command.
TIMEOUT = 10.0
CHANNEL = 1
QUEUE = "bench"
#: As the recorder's, but for the dead letters.
ARGUMENTS: FieldTable = {"x-queue-type": "quorum", "x-max-length": 20_000, "x-overflow": "reject-publish"}
#: Deliveries that may be unacknowledged.
PREFETCH = 500
CHUNK = 1024 * 1024

#: Type, channel and length of a frame, then the class and method of a method's.
_HEAD = struct.Struct(">BHI")
_METHOD = struct.Struct(">HH")
_METHOD_FRAME = 1
_DELIVER, _ACK = (60, 60), (60, 80)
_TAG = struct.Struct(">Q")


@dataclass
class Traffic:
    """Bodies so far."""

    confirmed: int = 0
    delivered: int = 0


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.frame_max = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator["_Connection"]:
        parts = urlsplit(url)
        async with asyncio.timeout(TIMEOUT):
            connection = cls(*await asyncio.open_connection(parts.hostname, parts.port or 5672, limit=CHUNK))
            login = f"\0{unquote(parts.username or '')}\0{unquote(parts.password or '')}"
            connection.writer.write(b"AMQP\x00\x00\x09\x01")
            await connection._read()
            connection._say(commands.Connection.StartOk({}, "PLAIN", login, "en_US"), 0)
            tune = await connection._read()
            connection.frame_max = tune.frame_max
            connection._say(commands.Connection.TuneOk(tune.channel_max, tune.frame_max, 0), 0)
            await connection.ask(commands.Connection.Open(unquote(parts.path[1:]) or "/"), 0)
            await connection.ask(commands.Channel.Open())
        try:
            yield connection
        finally:
            connection.writer.close()

    async def ask(self, command: Any, channel: int = CHANNEL) -> None:
        async with asyncio.timeout(TIMEOUT):
            self._say(command, channel)
            await self._read()

    async def methods(self) -> AsyncIterator[Iterator[tuple[tuple[int, int], bytes]]]:
        """Of each chunk that comes in its methods, with what follows the name of each."""
        rest = b""
        while chunk := await self.reader.read(CHUNK):
            data = rest + chunk
            ends = list(_frame_ends(data))
            rest = data[ends[-1] :] if ends else data
            yield _methods(data, ends)

    def _say(self, command: Any, channel: int) -> None:
        self.writer.write(frame.marshal(command, channel))

    async def _read(self) -> Any:
        head = await self.reader.readexactly(_HEAD.size)
        payload = await self.reader.readexactly(_HEAD.unpack(head)[2] + 1)
        return frame.unmarshal(head + payload)[2]


@asynccontextmanager
async def traffic(url: str, content: bytes, outstanding: int) -> AsyncIterator[Traffic]:
    """Publish the same body again and again, so many of them unconfirmed at any time, and consume them."""
    count = Traffic()
    async with _Connection.open(url) as publishing, _Connection.open(url) as consuming:
        await publishing.ask(commands.Queue.Declare(queue=QUEUE, durable=True, arguments=ARGUMENTS))
        await publishing.ask(commands.Confirm.Select())
        await consuming.ask(commands.Basic.Qos(prefetch_count=PREFETCH))
        await consuming.ask(commands.Basic.Consume(queue=QUEUE, consumer_tag="bench"))
        async with (
            background("publishing", _publish(publishing, content, outstanding, count)),
            background("consuming", _consume(consuming, count)),
        ):
            yield count
    async with _Connection.open(url) as connection:
        await connection.ask(commands.Queue.Delete(queue=QUEUE))


async def _publish(connection: _Connection, content: bytes, outstanding: int, count: Traffic) -> None:
    room = connection.frame_max - 8
    whole = frame.marshal(commands.Basic.Publish(routing_key=QUEUE), CHANNEL)
    properties = commands.Basic.Properties(delivery_mode=2)
    whole += frame.marshal(header.ContentHeader(body_size=len(content), properties=properties), CHANNEL)
    for start in range(0, len(content), room):
        whole += frame.marshal(body.ContentBody(content[start : start + room]), CHANNEL)
    connection.writer.write(whole * outstanding)
    async for methods in connection.methods():
        before = count.confirmed
        for name, fields in methods:
            assert name == _ACK, f"the broker said {name}"
            (tag,) = _TAG.unpack_from(fields)
            count.confirmed = tag  # one queue confirms in order, one at a time or several at once
        connection.writer.write(whole * (count.confirmed - before))


async def _consume(connection: _Connection, count: Traffic) -> None:
    async for methods in connection.methods():
        before = count.delivered
        count.delivered += sum(name == _DELIVER for name, _ in methods)
        if count.delivered > before:  # the tags of a channel are counted from 1
            connection.writer.write(frame.marshal(commands.Basic.Ack(count.delivered, multiple=True), CHANNEL))


def _frame_ends(data: bytes) -> Iterator[int]:
    """Where each whole frame ends."""
    end = 0
    while end + _HEAD.size <= len(data):
        end += _HEAD.size + _HEAD.unpack_from(data, end)[2] + 1
        if end > len(data):
            return
        yield end


def _methods(data: bytes, ends: list[int]) -> Iterator[tuple[tuple[int, int], bytes]]:
    for start, end in zip([0, *ends], ends, strict=False):
        if data[start] == _METHOD_FRAME:
            at = start + _HEAD.size
            yield _METHOD.unpack_from(data, at), data[at + _METHOD.size : end]
