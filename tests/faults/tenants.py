"""Two tenants in one room, with the same threads, names and keys: who speaks for each of them, and who looks whether
one can see anything of the other's."""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress

import httpx2

from tests.faults.load import Caller, Load, Plan, threads_of
from tests.faults.rig import Room
from tests.support.processes import Process

TENANTS = ("default", "acme")
#: What a room with them is told.
SETTINGS = {
    "AUTH": "required",
    "TENANTS": ",".join(TENANTS),
    "TOKEN_KEYS": f"one:{'5' * 64}",
    "ACCESS_TOKEN_TTL": "3600",  # longer than a trial
    **{
        f"LIMIT_{what}": "1000000/minute"
        for what in ("POSTS", "FEEDS", "BATCHES", "CHANGES", "SOCKET_MESSAGES", "SOCKETS", "TICKETS")
    },
}
#: Seconds between two looks.
LOOK_INTERVAL = 0.2
PASSWORD = "correct horse battery staple"


async def callers(room: Room, name: str, plan: Plan) -> Sequence[Caller]:
    """Have in each tenant the threads of a load of this name, a person who may speak there and a program that feeds
    them, each by the same name as in the others."""
    return [await _caller(room, tenant, threads_of(name, plan), name) for tenant in TENANTS]


async def _caller(room: Room, tenant: str, threads: Sequence[str], name: str) -> Caller:
    operator = f"operator-{name}"
    command = Process(f"user add {operator} --operator --tenant {tenant}", room.settings)
    assert await asyncio.to_thread(command.wait, 60) == 0, command.said
    one_time = re.findall(r"\S+", command.said)[-1]
    login = {"tenant": tenant, "name": operator, "password": one_time, "new_password": PASSWORD}
    async with httpx2.AsyncClient(base_url=room.gateways[0], timeout=30) as http:
        token = (await _done(http, "/api/login", login))["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        for thread in threads:
            await _done(http, "/api/threads", {"thread_id": thread, "visibility": "open"})
        key = (await _done(http, "/api/keys", {"name": f"feed-{name}", "threads": list(threads)}))["key"]
    return Caller(tenant, {"Authorization": f"Bearer {token}"}, {"Authorization": f"Bearer {key}"})


async def _done(http: httpx2.AsyncClient, path: str, body: object) -> dict[str, str]:
    response = await http.post(path, json=body)
    assert response.is_success, response.text
    answer: dict[str, str] = response.json()
    return answer


async def peek(loads: Sequence[Load]) -> None:
    """For ever, look by every door of HTTP whether one tenant is shown what was said in another; the load of whoever
    looks writes down what is odd."""
    async with httpx2.AsyncClient(timeout=10) as http:
        while True:
            for load in loads:
                with suppress(httpx2.HTTPError):  # while a service is away
                    await _read(http, load)
                    for other in loads:
                        if other is not load:
                            await _ask_for_what_is_not_its_own(http, load, other)
            await asyncio.sleep(LOOK_INTERVAL)


async def _read(http: httpx2.AsyncClient, load: Load) -> None:
    thread = load.random.choice(load.threads)
    address = f"{load.room.gateways[0]}/api/threads/{thread}"
    for response in (
        await http.get(f"{address}/history", params={"limit": 500}, headers=load.caller.person),
        await http.get(f"{address}/search", params={"q": load.name}, headers=load.caller.person),
    ):
        if response.status_code == 200:
            load.looks += 1
            for message in response.json()["messages"]:
                if not load.is_own(message["content"]):
                    load.odd.append(f"{load.caller.tenant} was shown {message['content']!r}")
        elif response.status_code < 500:
            load.odd.append(f"{response.url} answered {response.status_code} {response.text}")


async def _ask_for_what_is_not_its_own(http: httpx2.AsyncClient, load: Load, other: Load) -> None:
    ids = [said.message_id for said in other.said[-50:] if said.message_id]
    if not ids:
        return
    address = f"{load.room.gateways[-1]}/api/messages/{load.random.choice(ids)}"
    for response in (
        await http.get(address, headers=load.caller.person),
        await http.post(f"{address}/retry", headers=load.caller.person),
    ):
        load.looks += response.status_code == 404
        if response.status_code < 500 and response.status_code != 404:
            load.odd.append(f"{load.caller.tenant} was told {response.text} of what {other.caller.tenant} said")
