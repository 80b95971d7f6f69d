"""A client beside the load that looks whether the room works, or how it says that it does not."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import uuid4

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.faults.load import Caller
from tests.faults.rig import Doors, Room, now

#: Seconds between the starts of two tries to find the room well, and how many of them wait at a time.
INTERVAL = 0.5
MOST_AT_ONCE = 10
#: Seconds after which a room is given up.
HOPELESS = 120.0
#: Seconds in which a POST must be answered while a server is away, and what the machine may add to that.
ANSWER = 5.0
SLACK = 1.0
#: Seconds in which a service must notice that a server is away.
NOTICE = 3.0


async def recovered(room: Doors, since: float, caller: Caller | None = None) -> float | None:
    """Seconds from then until all is well at every door; None where it is not after a long time.

    Well is: a message posted at each gateway is answered with its reply, and all of them are pushed to a socket at each
    pusher. Tries do not wait for each other, since one may hang on a connection that is no more.
    """
    caller = caller or Caller()
    tries: set[asyncio.Task[float]] = set()
    try:
        while now() < since + HOPELESS:
            if len(tries) < MOST_AT_ONCE:  # else they would be most of the load of a room that is behind
                tries.add(asyncio.create_task(_well(room, caller), name="probe"))
            done, tries = await asyncio.wait(tries, timeout=INTERVAL, return_when=asyncio.FIRST_COMPLETED)
            if times := [task.result() for task in done if not task.exception()]:
                return max(0.0, min(times) - since)
            if done:
                await asyncio.sleep(INTERVAL)
        return None
    finally:
        for task in tries:
            task.cancel()
        await asyncio.gather(*tries, return_exceptions=True)


async def _well(room: Doors, caller: Caller) -> float:
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(timeout=30, headers=dict(caller.person)))
        thread = f"probe:{uuid4()}"
        if caller.person:  # then a thread does not come to be by being used
            made = await http.post(f"{room.gateways[0]}/api/threads", json={})
            made.raise_for_status()
            thread = made.json()["thread_id"]
        sockets = [await stack.enter_async_context(_socket(pusher, thread, caller)) for pusher in room.pushers]
        messages = [f"{thread} {number}, at once" for number in range(len(room.gateways))]
        answers = await asyncio.gather(
            *(
                http.post(f"{gateway}/api/chat", json={"thread_id": thread, "message": message})
                for gateway, message in zip(room.gateways, messages, strict=True)
            )
        )
        for answer in answers:
            answer.raise_for_status()
            if answer.status_code != 200:
                raise httpx2.HTTPError(f"{answer.status_code}")
        async with asyncio.timeout(30):
            await asyncio.gather(*(_hears(socket, 2 * len(messages)) for socket in sockets))
    return now()


async def _hears(socket: ClientConnection, messages: int) -> None:
    while messages:
        frame = json.loads(await socket.recv())
        messages -= frame["type"] == "new_message"


async def _ping(socket: ClientConnection) -> None:
    async with asyncio.timeout(5):
        await socket.send("ping")
        while json.loads(await socket.recv())["type"] != "pong":
            pass


@asynccontextmanager
async def _socket(pusher: str, thread: str, caller: Caller | None = None) -> AsyncIterator[ClientConnection]:
    url = f"{pusher.replace('http', 'ws', 1)}/ws/chat/{thread}?after=0"
    headers = caller.person if caller else {}
    opening = connect(url, additional_headers=headers, open_timeout=5, close_timeout=0.2, proxy=None, compression=None)
    async with opening as connection:
        yield connection


@dataclass
class Outage:
    """What clients see while a server is away."""

    room: Room
    missing: Sequence[str]
    #: Whether services can know it, since connections break or are refused.
    noticeable: bool
    #: What was not as it should be.
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0

    async def watch(self, seconds: float) -> None:
        """Look at every door for so long."""
        begun = now()
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(httpx2.AsyncClient(timeout=ANSWER + 5))
            looks = count()
            while now() < begun + seconds:
                await asyncio.gather(*(self._post(http, gateway, next(looks)) for gateway in self.room.gateways))
                if self.noticeable and now() > begun + NOTICE:
                    doors = {*self.room.gateways, *self.room.pushers}
                    await asyncio.gather(*(self._readiness(http, door) for door in doors))
                if list(self.missing) == ["broker"]:
                    await asyncio.gather(*(self._history(http, gateway) for gateway in self.room.gateways))
                await asyncio.sleep(max(0.0, min(2.0, begun + seconds - now())))

    async def _post(self, http: httpx2.AsyncClient, gateway: str, look: int) -> None:
        begun = now()
        body = {"thread_id": "probe:away", "message": f"anyone? at once {look}"}
        answer = await self._answer(http.post(f"{gateway}/api/chat", json=body, headers={"Prefer": "respond-async"}))
        took = now() - begun
        self.slowest = max(self.slowest, took)
        if answer is None:
            self.wrong.append(f"a POST got no answer within {took:.1f} s")
        elif answer.status_code != 503 or "Retry-After" not in answer.headers:
            self.wrong.append(f"a POST got {answer.status_code} {answer.text[:200]} {dict(answer.headers)}")
        elif took > ANSWER + SLACK:
            self.wrong.append(f"a POST took {took:.1f} s")

    async def _readiness(self, http: httpx2.AsyncClient, door: str) -> None:
        answer = await self._answer(http.get(f"{door}/readyz"))
        if answer is None:
            self.wrong.append("/readyz gave no answer")
        elif answer.status_code != 503 or answer.json()["message"] != f"Missing: {', '.join(self.missing)}.":
            self.wrong.append(f"/readyz said {answer.status_code} {answer.text[:200]}")

    async def _history(self, http: httpx2.AsyncClient, gateway: str) -> None:
        answer = await self._answer(http.get(f"{gateway}/api/threads/probe:away/history"))
        if answer is None or answer.status_code != 200:
            self.wrong.append(f"the history gave {answer and answer.text[:200]}")

    async def _answer(self, request: Any) -> httpx2.Response | None:
        with suppress(httpx2.HTTPError):
            response: httpx2.Response = await request
            return response
        return None

    @asynccontextmanager
    async def socket_stays_open(self) -> AsyncIterator[None]:
        """A socket at each pusher, opened before, which must outlive the block."""
        async with AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(_socket(pusher, "probe:stays")) for pusher in self.room.pushers]
            for socket in sockets:
                await _ping(socket)
            await asyncio.sleep(1)  # what is before the first number is read from the table
            yield
            for socket in sockets:
                try:
                    await _ping(socket)
                except (TimeoutError, WebSocketException) as error:
                    self.wrong.append(f"a socket did not stay open: {error!r}")
