"""What one socket is sent, and when it is too slow for it."""

from sys import maxsize

from m3.errors import Denied, Expired
from m3.web.raw_frames import FrameWriter, text_frame
from services.pusher.close_codes import Close


class Outbox:
    """``limit``: most that may wait for the client to take it, in bytes. ``all_events``: whether the socket asked for
    more than messages."""

    __slots__ = ("_limit", "_writer", "all_events", "closed")

    def __init__(self, writer: FrameWriter, limit: int, *, all_events: bool = False) -> None:
        self.all_events = all_events
        self.closed: Close | None = None
        self._writer = writer
        self._limit = limit

    def put(self, frames: bytes) -> None:
        """Never waits: a slow socket costs itself its connection, not the others their latency. What is put while
        nothing waits may be however long."""
        unsent = self._writer.unsent
        if unsent and unsent + len(frames) > self._limit:
            self.close(Close.SLOW)  # what was put is lost
        else:
            self._writer.write(frames)

    def put_if_roomy(self, frames: bytes) -> bool:
        """Put what a socket can do without, where that leaves half of what may wait to what it cannot."""
        roomy = self._writer.unsent + len(frames) <= self._limit // 2
        if roomy:
            self._writer.write(frames)
        return roomy

    def tell(self, *frames: str) -> None:
        """Put frames for this socket alone, together."""
        self.put(b"".join(map(text_frame, frames)))

    def unbounded(self) -> "Outbox":
        """The same socket, for who has much to put and waits with ``drain`` in between."""
        return Outbox(self._writer, maxsize, all_events=self.all_events)

    async def drain(self) -> None:
        """Wait until the client has taken most of what was put. The caller sees to a deadline."""
        await self._writer.drain()

    def close(self, why: Close) -> None:
        """Have the socket closed, behind what waits for it."""
        self.closed = self.closed or why
        self._writer.close(why.code, why.reason)

    def end(self, why: Denied) -> None:
        """Have it closed on who may not read any more."""
        self.close(Close.SIGN_IN_AGAIN if isinstance(why, Expired) else Close.NO_LONGER_ALLOWED)
