"""Sockets by the thousand, on a compiled client, so that it is not what is measured."""

import asyncio
import gc
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from picows import WSFrame, WSListener, WSTransport, ws_connect

#: Sockets that are opened side by side.
OPENED_AT_ONCE = 64
#: Seconds that opening one may take.
TIMEOUT = 30.0
#: Seconds for all that sockets are sent.
PATIENCE = 120.0
#: Of this process: its other connections and files, and as many again for a server's own.
SPARE_FILES = 512

#: Part of a core from which on the load maker is what is measured.
BUSY = 0.9


class Crowd:
    """Open sockets, and how many frames they were sent together, their welcomes among them."""

    def __init__(self) -> None:
        self.transports: list[WSTransport] = []
        self.heard = 0
        self.awaited = 0
        self.enough = asyncio.Event()
        self.lost: list[WSTransport] = []
        self.leaving = False

    async def hear(self, count: int) -> None:
        """Wait for so many frames more. Raises ConnectionError where a socket was closed, and TimeoutError."""
        self.awaited += count
        if self.heard < self.awaited:
            self.enough.clear()
            async with asyncio.timeout(PATIENCE):
                await self.enough.wait()
        if self.lost:
            raise ConnectionError(f"{len(self.lost)} sockets were closed: {_why(self.lost[0])}")


class Listener(WSListener):
    """One socket, which counts for its crowd and answers pings."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:  # noqa: ARG002  # picows hands it over
        crowd = self._crowd
        crowd.heard += 1
        if crowd.heard == crowd.awaited:
            crowd.enough.set()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if not self._crowd.leaving:
            self._crowd.lost.append(transport)
            self._crowd.enough.set()


@asynccontextmanager
async def listening(
    address: str, thread_ids: Sequence[str], listener: Callable[[Crowd], WSListener] = Listener
) -> AsyncIterator[Crowd]:
    """A welcomed socket of each thread, which may be named more than once. Raises OSError, WSError, TimeoutError."""
    crowd = Crowd()
    places = asyncio.Semaphore(OPENED_AT_ONCE)

    async def open_one(thread_id: str) -> None:
        async with places:
            crowd.transports.append(await _connect(address, thread_id, lambda: listener(crowd)))

    allow_files(len(thread_ids))
    try:
        async with asyncio.TaskGroup() as group:
            for thread_id in thread_ids:
                group.create_task(open_one(thread_id), name=f"opening a socket of {thread_id}")
        await crowd.hear(len(thread_ids))
        yield crowd
    finally:
        crowd.leaving = True
        for transport in crowd.transports:
            transport.disconnect()  # at once, since not every server answers


class _Guest(WSListener):
    """One socket alone, and its welcome."""

    def __init__(self) -> None:
        self.welcomed = asyncio.Event()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:  # noqa: ARG002  # picows hands it over
        self.welcomed.set()


async def visit(address: str, thread_id: str) -> WSTransport:
    """A welcomed socket. Raises OSError, WSError, TimeoutError."""
    guest = _Guest()
    transport = await _connect(address, thread_id, lambda: guest)
    async with asyncio.timeout(TIMEOUT):
        await guest.welcomed.wait()
    return transport


async def part(transport: WSTransport) -> None:
    """Close a socket, and wait until the server has closed it too. Raises TimeoutError."""
    transport.send_close()
    async with asyncio.timeout(TIMEOUT):
        await transport.wait_disconnected()


async def _connect(address: str, thread_id: str, listener: Callable[[], WSListener]) -> WSTransport:
    url = f"{address.replace('http', 'ws', 1)}/ws/chat/{thread_id}"
    transport, _ = await ws_connect(listener, url, websocket_handshake_timeout=TIMEOUT)
    return transport


def allow_files(count: int) -> None:
    """Let this process, and those that it starts from here on, have so many sockets. Raises OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE_FILES
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise OSError(f"{count} sockets need `ulimit -n {wanted}`, and this system allows {hard}.")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Effort:
    """What this process took of a core meanwhile."""

    def __init__(self) -> None:
        self.share = 0.0
        self.seconds = 0.0

    @property
    def limiting(self) -> bool:
        return self.share >= BUSY


@contextmanager
def effort() -> Iterator[Effort]:
    """Look at the load maker's CPU use inside the block; it is not to stop for its garbage there."""
    taken = Effort()
    gc.collect()
    gc.disable()
    begun, used = time.perf_counter(), time.process_time()
    try:
        yield taken
    finally:
        taken.seconds = time.perf_counter() - begun
        taken.share = (time.process_time() - used) / taken.seconds
        gc.enable()


def _why(transport: WSTransport) -> str:
    handshake = transport.close_handshake
    return f"{handshake.recv.code} {handshake.recv.reason}" if handshake and handshake.recv else "without a word"
