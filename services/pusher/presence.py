"""What the sockets that watch a thread are told of who is here and who types, and how often. Free of sockets.

They are told states in full, so that a frame may be left out: the first change is told at once, and what changes after
it together. Each socket that comes changes the state for all that watch, so 5,000 that come would be told of 25 million
times; paced by how many watch, they are told of 2,000 times a second however many come.
"""

from collections.abc import Collection

from m3.frames import Frame
from m3.tenants import thread_id_of
from services.pusher.attendance import TYPISTS, Crowd

#: Shortest time between what a thread's sockets are told, in seconds.
INTERVAL = 0.25
#: Most frames a second that all the watching sockets of a thread are sent together, on one pusher.
RATE = 2_000
#: Most names in a frame, of each kind.
LISTED = 50


class Presence:
    """``crowd``: what the first socket that watches the thread was told."""

    def __init__(self, thread_id: str, crowd: Crowd) -> None:
        self._thread_id = thread_id
        self._told = crowd
        self._next = 0.0

    def ready(self, now: float) -> bool:
        """Whether something may be told already."""
        return now >= self._next

    def tell(self, crowd: Crowd, watchers: int, now: float) -> list[Frame]:
        """What is to be told to so many sockets, as to all that changed since they were told last."""
        before, self._told = self._told, crowd
        frames = []
        if (crowd.connections, crowd.names, crowd.unlisted) != (before.connections, before.names, before.unlisted):
            frames.append(here(self._thread_id, crowd, crowd.names - before.names, before.names - crowd.names))
        if crowd.typing != before.typing:
            frames.append(typing(self._thread_id, crowd))
        if frames:
            self._next = now + max(INTERVAL, len(frames) * watchers / RATE)
        return frames


def opening(thread_id: str, crowd: Crowd) -> list[Frame]:
    """What a socket is told that begins to watch."""
    return [here(thread_id, crowd), *([typing(thread_id, crowd)] if crowd.typing else [])]


def here(key: str, crowd: Crowd, joined: Collection[str] = (), left: Collection[str] = ()) -> Frame:
    """Who is here. The names that are not listed are counted as ``more``."""
    clients = _listed(crowd.names)
    frame: Frame = {
        "type": "presence",
        "thread_id": thread_id_of(key),
        "connections": crowd.connections,
        "clients": clients,
        "joined": _listed(joined),
        "left": _listed(left),
    }
    more = len(crowd.names) - len(clients) + crowd.unlisted
    return frame | {"more": more} if more else frame


def typing(key: str, crowd: Crowd) -> Frame:
    return {"type": "typing", "thread_id": thread_id_of(key), "clients": sorted(crowd.typing)[:TYPISTS]}


def _listed(names: Collection[str]) -> list[str]:
    return sorted(names)[:LISTED]
