"""A socket's writer without a socket."""

import asyncio


class Writer:
    """Keeps what is written. ``takes``: whether the client takes it at once; otherwise it stays unsent."""

    def __init__(self, *, takes: bool = True) -> None:
        self.writes: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.unsent = 0
        self.room = asyncio.Event()
        self._takes = takes

    def write(self, frames: bytes) -> None:
        self.writes.append(frames)
        self.unsent += 0 if self._takes else len(frames)

    async def drain(self) -> None:
        if self.unsent:
            await self.room.wait()

    def close(self, code: int, reason: str) -> None:
        self.closed = self.closed or (code, reason)
