"""``python -m bench.sealing``: what the search costs the recorder, and what sealing costs a message and a page.

What is compared takes turns in one run, since a machine is never twice the same.
"""

import random
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx2
from pydantic import SecretStr

from bench import cpu, rooms
from bench.rooms import ms, say
from m3.bus import Bus, open_bus
from m3.events import MessageAccepted, encode
from m3.logs import set_up_logs
from m3.sealing import Masters
from m3.settings import Settings
from m3.store import Store, migrate, open_store
from m3.store.embedded import embedded_postgres
from m3.topology import accepted
from services.recorder import recorder
from tests.support.gateway import running_gateway
from tests.support.until import until

#: How a room is: without a search as it was, plain with one, and sealed.
BARE, PLAIN, SEALED = "no search", "plain", "sealed"
KEY = SecretStr(f"bench:{'0' * 64}")

#: Words that messages are made of. A few of them are said most of the time, as in any language.
WORDS = [f"word{number}" for number in range(20_000)]
WEIGHTS = [1 / (rank + 1) for rank in range(len(WORDS))]
WORDS_A_MESSAGE = 12
THREADS = 64

#: Rounds of what takes turns, after one that does not count.
ROUNDS = 8
#: Messages of a round, and of a body.
MESSAGES = 5_000
BATCH = 500
POSTS = 100
PAGES = 50
PAGE = 100
SEARCHES = 50


async def _measure(folder: Path, _: str) -> str:
    set_up_logs("error")
    async with embedded_postgres(folder) as url, open_bus("memory://") as bus:
        await migrate(url)
        async with open_store(url, pool_size=5) as keyless, recorder(bus, keyless, grace=10):
            say("recording")
            used = partial(_used, rooms.postmaster(folder))
            async with _store(url, sealed=True) as sealing:
                costs = await _rounds(
                    {
                        BARE: partial(_cost_of_recording, used, bus, keyless, searchable=False),
                        PLAIN: partial(_cost_of_recording, used, bus, keyless, searchable=True),
                        SEALED: partial(_cost_of_recording, used, bus, sealing, searchable=True),
                    }
                )
            async with _http(bus, url, sealed=False) as plain, _http(bus, url, sealed=True) as sealed:
                say("posting")
                posts = await _rounds({PLAIN: partial(_posts, plain, PLAIN), SEALED: partial(_posts, sealed, SEALED)})
                say("reading")
                pages = await _rounds({PLAIN: partial(_pages, plain, PLAIN), SEALED: partial(_pages, sealed, SEALED)})
                say("searching")
                found = await _rounds({PLAIN: partial(_found, plain, PLAIN), SEALED: partial(_found, sealed, SEALED)})
    return _report(costs, posts, pages, found)


async def _rounds(measures: Mapping[str, Callable[[], Awaitable[float]]]) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = defaultdict(list)
    for number in range(ROUNDS + 1):
        for name, measure in random.sample(list(measures.items()), len(measures)):
            figure = await measure()
            if number:
                figures[name].append(figure)
    return figures


@asynccontextmanager
async def _store(url: str, *, sealed: bool) -> AsyncIterator[Store]:
    masters = Masters.of(Settings(content_keys=KEY if sealed else None))
    async with open_store(url, pool_size=5, masters=masters) as store:
        yield store


@asynccontextmanager
async def _http(bus: Bus, url: str, *, sealed: bool) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a gateway."""
    async with _store(url, sealed=sealed) as store, running_gateway(bus, store) as http:
        yield http


def _text() -> str:
    return " ".join(random.choices(WORDS, WEIGHTS, k=WORDS_A_MESSAGE))


async def _cost_of_recording(used: Callable[[], float], bus: Bus, store: Store, *, searchable: bool) -> float:
    """Microseconds of processor time that a message takes of the whole recorder and of PostgreSQL, by bodies that were
    made before. How long it takes would also tell what else the machine does."""
    said = [
        MessageAccepted(
            thread_id=f"load-{random.randrange(THREADS)}",
            source="user",
            content=_text(),
            interface="http_api",
            origin="bench",
        )
        for _ in range(MESSAGES)
    ]
    events = await store.content.sealed(said)
    if not searchable:
        events = [event.model_copy(update={"terms": None}) for event in events]
    bodies = [encode(events[begin : begin + BATCH]) for begin in range(0, MESSAGES, BATCH)]
    last = {event.thread_id: event.message_id for event in events}
    begun = used()
    for body in bodies:
        await bus.publish(accepted(), body)

    async def is_done() -> bool:
        return len(await store.messages(last.values())) == len(last)

    await until(is_done, within=60, every=0.1)
    return (used() - begun) / MESSAGES * 1e6


def _used(postgres: int) -> float:
    """Processor time of this process and of PostgreSQL so far, in seconds."""
    return time.process_time() + cpu.seconds({"PostgreSQL": postgres})["PostgreSQL"]


async def _timed(ask: Callable[[], Awaitable[httpx2.Response]], times: int) -> float:
    """Seconds of one in the middle."""
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        answer = await ask()
        seconds.append(time.perf_counter() - begun)
        answer.raise_for_status()
    return statistics.median(seconds)


async def _posts(http: httpx2.AsyncClient, name: str) -> float:
    async def post() -> httpx2.Response:
        body = {"message": _text(), "thread_id": f"{name}-{random.randrange(THREADS)}"}
        return await http.post("/api/chat", json=body, headers={"Prefer": "respond-async"})

    return await _timed(post, POSTS)


async def _pages(http: httpx2.AsyncClient, name: str) -> float:
    """Of a thread that was spoken in before."""
    return await _timed(lambda: http.get(f"/api/threads/{name}-0/history", params={"limit": PAGE}), PAGES)


async def _found(http: httpx2.AsyncClient, name: str) -> float:
    def search() -> Awaitable[httpx2.Response]:
        word = random.choices(WORDS, WEIGHTS)[0]
        return http.get(f"/api/threads/{name}-0/search", params={"q": word})

    return await _timed(search, SEARCHES)


def _report(
    costs: Mapping[str, Sequence[float]],
    posts: Mapping[str, Sequence[float]],
    pages: Mapping[str, Sequence[float]],
    found: Mapping[str, Sequence[float]],
) -> str:
    return f"""\
| recording a message | µs of processor time | to no search, ratio of medians |
|---|---:|---:|
{_cost_rows(costs)}

| | plain, median | sealed, median | ratio of medians |
|---|---:|---:|---:|
{_time_row("`POST /api/chat`, recorded", posts)}
{_time_row(f"a page of history of {PAGE}", pages)}
{_time_row("a search for one word", found)}

Messages of {WORDS_A_MESSAGE} words of {len(WORDS):,}, some of which are said most of the time, go to {THREADS} threads.
Recording: {MESSAGES:,} messages in bodies of {BATCH}, made before, from the first publish until the last is in the
table, by a recorder and a PostgreSQL beside it, in turns, {ROUNDS} rounds after one that does not count. The rest are
medians of rounds of one request after the other, in turns too; gateway, recorder and client share a process."""


def _cost_rows(costs: Mapping[str, Sequence[float]]) -> str:
    bare = statistics.median(costs[BARE])
    return "\n".join(
        f"| {name} | {rooms.spread(costs[name])} | {statistics.median(costs[name]) / bare:.2f} |"
        for name in (BARE, PLAIN, SEALED)
    )


def _time_row(what: str, times: Mapping[str, Sequence[float]]) -> str:
    plain, sealed = (statistics.median(times[name]) for name in (PLAIN, SEALED))
    return f"| {what} | {ms(plain)} | {ms(sealed)} | {sealed / plain:.2f} |"


if __name__ == "__main__":
    rooms.run("Sealing and search", _measure)
