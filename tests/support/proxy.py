"""A TCP connection that can be cut, and that can fall silent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from yarl import URL

from m3.bus import Bus, open_bus
from tests.support.until import until


class Proxy:
    """Forwards to a port of this machine until it is told to cut what runs through it."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._refusing = False
        self._swallowing = False
        self._delay = 0.0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.port = 0
        #: The last that got through, whichever way.
        self.passed = b""

    def cut(self) -> None:
        """Reset every connection that is open now."""
        for writer in self._writers:
            writer.transport.abort()

    def stall(self, *, stalling: bool) -> None:
        """Whether nothing gets through, while every connection stays open."""
        if stalling:
            self._flowing.clear()
        else:
            self._flowing.set()

    def refuse(self, *, refusing: bool) -> None:
        """Whether new connections are ended at once."""
        self._refusing = refusing

    def swallow(self, *, swallowing: bool) -> None:
        """Whether what comes in is thrown away, while every connection stays open. What was swallowed is gone, so the
        connections of that time are reset at the end."""
        if self._swallowing and not swallowing:
            self.cut()
        self._swallowing = swallowing

    def delay(self, seconds: float) -> None:
        """How long everything takes to get through, each way."""
        self._delay = seconds

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the server is away
            writer.transport.abort()
            return
        self._writers |= {writer, onward_writer}
        await asyncio.gather(self._pump(reader, onward_writer), self._pump(onward_reader, writer))
        self._writers -= {writer, onward_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, RuntimeError):  # uvloop's word for a connection that was cut meanwhile
            while data := await reader.read(64 * 1024):
                await self._flowing.wait()
                if self._swallowing:
                    continue
                if self._delay:
                    await asyncio.sleep(self._delay)
                writer.write(data)
                self.passed = data
                await writer.drain()
        writer.close()


@asynccontextmanager
async def proxy(target: int) -> AsyncIterator[Proxy]:
    forwarder = Proxy(target)
    server = await asyncio.start_server(forwarder._serve, "127.0.0.1", 0)
    forwarder.port = server.sockets[0].getsockname()[1]
    async with server:
        try:
            yield forwarder
        finally:
            forwarder.stall(stalling=False)
            forwarder.cut()
            server.close()


@asynccontextmanager
async def frail_bus(broker_url: str) -> AsyncIterator[tuple[Proxy, Bus]]:
    """A bus, and its line to the broker."""
    url = URL(broker_url).with_host("127.0.0.1")
    async with proxy(URL(broker_url).port or 5672) as line, open_bus(str(url.with_port(line.port))) as bus:
        await until(lambda: bus.connected)
        yield line, bus
