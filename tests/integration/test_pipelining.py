"""Requests that come one behind the other on a connection, before the first is answered."""

import asyncio
from collections.abc import Sequence

from m3.bus import Bus
from m3.store import Store
from tests.support.gateway import serving_gateway
from tests.support.town import Town, asking
from tests.support.until import DEADLINE


def history(credential: str) -> bytes:
    return (
        f"GET /api/threads/show/history HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {credential}\r\n\r\n"
    ).encode()


async def statuses(address: str, requests: Sequence[bytes]) -> list[int]:
    """Of the answers to requests that are sent together."""
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(b"".join(requests))
        answered = []
        async with asyncio.timeout(DEADLINE):
            for _ in requests:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                answered.append(int(head.split()[1]))
                await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
        return answered
    finally:
        writer.close()


async def test_a_request_speaks_for_its_own_caller_whoever_asked_before_on_its_connection(
    memory_bus: Bus, store: Store, town: Town
) -> None:
    ana, bob = await town.person("ana"), await town.person("bob", "acme")
    await town.thread("show", ana="owner")
    await town.thread("acme.show", bob="owner")
    changes = asking().model_dump(exclude_unset=True)
    async with serving_gateway(memory_bus, store, **changes) as address:
        assert await statuses(address, [history(ana), history(bob), history(ana)]) == [200, 200, 200]
