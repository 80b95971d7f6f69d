"""Frames that the room makes itself and writes straight to a socket's transport.

The same bytes go to every socket of a thread, many frames in one write, and no task waits for any of them. ASGI's own
``websocket.send`` would build the frame, and wait, once for each socket. It works because compression is off: a frame
then carries no state of its connection.
"""

from typing import Protocol

from starlette.types import Scope
from websockets.frames import Frame, Opcode

#: Where a socket's scope has its FrameWriter.
EXTENSION = "m3.raw_frames"


class FrameWriter(Protocol):
    """Writes to one socket, from its acceptance on. Where the client is gone nothing happens."""

    @property
    def unsent(self) -> int:
        """Bytes that were written and wait for the client to take them."""

    def write(self, frames: bytes) -> None:
        """Whole frames, as ``text_frame`` makes them. Never waits."""

    async def drain(self) -> None:
        """Wait until little is unsent."""

    def close(self, code: int, reason: str) -> None:
        """Tell the client, and cut it off if it does not take that within seconds. The app hears a disconnect."""


def text_frame(text: str) -> bytes:
    """The frame that carries the text from a server."""
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


def frame_writer(scope: Scope) -> FrameWriter:
    """The writer of a socket that m3.web.serve serves."""
    writer: FrameWriter = scope["extensions"][EXTENSION]
    return writer
