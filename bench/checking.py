"""``python -m bench.checking``: what it costs that the room asks who somebody is, and that it seals what is said.

Three rooms stand side by side and take turns, one request each, so that whatever else the machine does meets all.
"""

import asyncio
import json
import re
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from websockets.asyncio.client import connect

from bench import rooms
from bench.rooms import say
from tests.support.client import client

#: Turns of each kind, and those before them that do not count.
TURNS = 1_000
WARM = 100
#: Messages on the page of history that is read.
PAGE = 100
PASSWORD = "correct horse battery staple"
KEYS = f"one:{'5' * 64}"
UNLIMITED = {f"LIMIT_{what}": "1000000/minute" for what in ("POSTS", "CHANGES", "SOCKETS", "TICKETS")}

#: The rooms, and what each is told.
KINDS = {
    "open": {},
    "asks": {"AUTH": "required", **UNLIMITED},
    "asks and seals": {"AUTH": "required", "CONTENT_KEYS": KEYS, **UNLIMITED},
}


@dataclass
class _Measured:
    """Seconds of everything that was done in a room."""

    name: str
    http: httpx2.AsyncClient
    posts: list[float] = field(default_factory=list)
    sockets: list[float] = field(default_factory=list)
    pages: list[float] = field(default_factory=list)


async def _measure(folder: Path, broker_url: str) -> str:  # noqa: ARG001  # the broker's part is the same in all
    async with AsyncExitStack() as stack:
        measured = []
        for name, settings in KINDS.items():
            process = stack.enter_context(
                rooms.running("up", DATA_DIR=str(folder / name.replace(" ", "-")), **settings)
            )
            http = await stack.enter_async_context(client(process.address()))
            if settings:
                http.headers["Authorization"] = await _signed_in(http, process.said)
            await _pause(http)
            measured.append(_Measured(name, http))
        say(f"{TURNS} posts, sockets and pages to each room")
        for turn in range(WARM + TURNS):
            for one in measured:
                post, socket, page = await _post(one, turn), await _open_socket(one), await _read_page(one)
                if turn >= WARM:
                    one.posts.append(post)
                    one.sockets.append(socket)
                    one.pages.append(page)
        return _report(measured)


async def _signed_in(http: httpx2.AsyncClient, printed: str) -> str:
    """As a person of the room, who is no operator. Returns the header."""
    one_time = re.findall(r"which is shown once: (\S+)", printed)[-1]
    operator = await _token(http, "admin", one_time)
    made = await http.post("/api/users", json={"name": "ann"}, headers={"Authorization": operator})
    assert made.is_success, made.text
    return await _token(http, "ann", made.json()["password"])


async def _token(http: httpx2.AsyncClient, name: str, one_time: str) -> str:
    answer = await http.post("/api/login", json={"name": name, "password": one_time, "new_password": PASSWORD})
    assert answer.is_success, answer.text
    return f"Bearer {answer.json()['access_token']}"


async def _pause(http: httpx2.AsyncClient) -> None:
    """Have the agent leave what is said, in a thread of our own."""
    made = await http.post("/api/threads", json={})
    thread = made.json()["thread_id"] if made.is_success else "default"
    http.headers["Thread"] = thread
    answer = await http.put(f"/api/threads/{thread}/settings", json={"pause": "wait"})
    assert answer.is_success, answer.text


async def _post(one: _Measured, turn: int) -> float:
    body = {"message": f"Are you there? {turn}", "thread_id": one.http.headers["Thread"]}
    return await _timed(one.http.post("/api/chat", json=body, headers={"Prefer": "respond-async"}))


async def _read_page(one: _Measured) -> float:
    return await _timed(one.http.get(f"/api/threads/{one.http.headers['Thread']}/history", params={"limit": PAGE}))


async def _timed(asking: Awaitable[httpx2.Response]) -> float:
    begun = time.perf_counter()
    answer = await asking
    took = time.perf_counter() - begun
    assert answer.is_success, answer.text
    return took


async def _open_socket(one: _Measured) -> float:
    """Seconds from the handshake's begin until the room greets. The ticket is had before."""
    address = str(one.http.base_url).replace("http", "ws", 1).rstrip("/")
    url = f"{address}/ws/chat/{one.http.headers['Thread']}"
    if "Authorization" in one.http.headers:
        answer = await one.http.post("/api/ws-ticket")
        assert answer.is_success, answer.text
        url += f"?ticket={answer.json()['ticket']}"
    begun = time.perf_counter()
    async with connect(url, proxy=None, compression=None) as socket:
        async with asyncio.timeout(rooms.BROKER_TIMEOUT):
            assert json.loads(await socket.recv())["type"] == "connected"
        return time.perf_counter() - begun


def _report(measured: Sequence[_Measured]) -> str:
    plain = measured[0]

    def row(what: str, seconds: Callable[[_Measured], list[float]]) -> str:
        base = statistics.median(seconds(plain))
        cells = [f"{1000 * base:.2f} ms"]
        for one in measured[1:]:
            median = statistics.median(seconds(one))
            cells.append(f"{1000 * median:.2f} ms, {1000 * (median - base):+.2f} ms, {median / base:.2f}")
        return f"| {what} | {' | '.join(cells)} |"

    lines = [
        row("a POST until it is recorded", lambda one: one.posts),
        row("a socket until it is greeted", lambda one: one.sockets),
        row(f"a page of {PAGE} messages", lambda one: one.pages),
    ]
    return f"""\
| median | {" | ".join(f"room that {one.name}" if one is not plain else "AUTH=open" for one in measured)} |
|---|{"---:|" * len(measured)}
{chr(10).join(lines)}

The difference and the ratio are to `AUTH=open`; the aim is at most 0.3 ms for a POST and for a socket of a room that
asks. Three rooms of one process each stand side by side, and one client asks each in turn, {TURNS} times after {WARM}
that do not count. It comes as a person with an access token, and to sockets with a ticket, which is asked for before
and not part of the time. Agents are told to wait."""


if __name__ == "__main__":
    rooms.run("Checking and sealing", _measure)
