"""Events as the bytes that go over the wire."""

from collections.abc import Iterable
from typing import NamedTuple

from m3.events import ThreadEvent
from m3.web.raw_frames import text_frame
from services.pusher import frames


class Built(NamedTuple):
    """An event as frames, for sockets that get what is said, and for those that get all that happens."""

    number: int
    for_listeners: bytes
    for_watchers: bytes

    def bytes_for(self, *, all_events: bool) -> bytes:
        return self.for_watchers if all_events else self.for_listeners


def built(event: ThreadEvent, *, watched: bool = True) -> Built:
    """``watched``: whether there is anybody for whom to build all that happens."""
    told = _wire(frames.for_everyone(event))
    return Built(event.number, told, _wire(frames.for_all_events(event)) + told if watched else b"")


def _wire(texts: Iterable[str]) -> bytes:
    return b"".join(map(text_frame, texts))
