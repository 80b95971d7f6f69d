"""``python -m bench.page``: what the page takes until one can type, with 20,000 messages, and in a flood."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
from playwright.async_api import Browser, Page

from bench import rooms
from bench.rooms import Room, say
from tests.support.chromium import chromium
from tests.support.client import client

#: Times that the page is opened in a browser that has nothing of it.
OPENINGS = 15
MESSAGES = 20_000
BATCH = 500
#: Messages a second of a flood, how many go in one request, and seconds that it lasts.
FLOOD, AT_ONCE, SECONDS = 200, 10, 15.0
#: Pixels of one turn of the wheel, and turns, upwards through what was loaded.
WHEEL, TURNS = 2_000, 200
#: Seconds within which all messages must be there.
DEADLINE = 300.0

#: Aims: gzipped script in bytes, and milliseconds until one can type.
MOST_SCRIPT = 80 * 1000
MOST_OPENING = 1_000.0

VIEWPORT = {"width": 1280, "height": 820}

#: When the field to type in was there, in milliseconds since the page was asked for.
_READY = """
new MutationObserver((_, observer) => {
  if (!document.getElementById("composer")) return;
  window.readyAt = performance.now();
  observer.disconnect();
}).observe(document, { childList: true, subtree: true });
"""
#: Milliseconds between two frames.
_FRAMES = """
window.frameTimes = [];
let last;
const drawn = (now) => {
  if (last !== undefined) window.frameTimes.push(now - last);
  last = now;
  requestAnimationFrame(drawn);
};
requestAnimationFrame(drawn);
"""


async def _measure(folder: Path, _broker_url: str) -> str:
    async with AsyncExitStack() as stack:
        room = stack.enter_context(rooms.embedded(folder / "room"))
        browser = await stack.enter_async_context(chromium(say))
        http = await stack.enter_async_context(client(room.gateway))
        opening = await _opening(browser, room, http)
        await _fill(http)
        return "\n".join([opening, await _long(browser, room, http)])


async def _opening(browser: Browser, room: Room, http: httpx2.AsyncClient) -> str:
    ready, health, script = [], [], 0
    for _ in range(OPENINGS):
        context = await browser.new_context(viewport=VIEWPORT)  # type: ignore[arg-type]  # a dict of the same shape
        page = await context.new_page()
        await page.add_init_script(_READY)
        await page.goto(room.gateway)
        await page.wait_for_function("() => window.readyAt")
        ready.append(await page.evaluate("window.readyAt"))
        script = await page.evaluate(
            "performance.getEntriesByType('resource').filter(({name}) => name.endsWith('.js'))"
            ".reduce((sum, {encodedBodySize}) => sum + encodedBodySize, 0)"
        )
        await context.close()
        begun = time.perf_counter()
        await http.get("/healthz")
        health.append((time.perf_counter() - begun) * 1000)
    typing = statistics.median(ready)
    return f"""\
| first opening, of {OPENINGS} | | aim |
|---|---:|---:|
| script, gzipped | {script / 1000:.1f} kB | {_aim(script / 1000, MOST_SCRIPT / 1000, "kB")} |
| until one can type: median, longest | {typing:.0f} ms, {max(ready):.0f} ms | {_aim(typing, MOST_OPENING, "ms")} |
| `GET /healthz`, median | {statistics.median(health):.1f} ms | |
"""


def _aim(figure: float, most: float, unit: str) -> str:
    return f"at most {most:g} {unit}: {'met' if figure <= most else 'missed'}"


async def _fill(http: httpx2.AsyncClient) -> None:
    say(f"saying {MESSAGES} messages")
    await http.put("/api/threads/long/settings", json={"user_policy": "ignore", "api_policy": "ignore"})
    for first in range(0, MESSAGES, BATCH):
        said = [
            {
                "message": f"viewer{number}: message {number} " + "word " * (number % 30),
                "source": "user" if number % 5 == 0 else "api",
            }
            for number in range(first, first + BATCH)
        ]
        (await http.post("/api/threads/long/messages", json=said)).raise_for_status()


async def _long(browser: Browser, room: Room, http: httpx2.AsyncClient) -> str:
    page = await browser.new_page(viewport=VIEWPORT)  # type: ignore[arg-type]  # as above
    await page.add_init_script(_FRAMES)
    await page.goto(f"{room.gateway}/?thread=long")
    await page.wait_for_selector("article")
    rows = {}
    rows["nothing happens"] = await _frames(page, lambda: asyncio.sleep(SECONDS))
    say("going up through all of them")
    begun = time.perf_counter()
    rows[f"{MESSAGES:,} messages are loaded, 200 at a time"] = await _frames(page, lambda: _go_up(page))
    took = time.perf_counter() - begun
    drawn = await page.locator("article").count()
    rows["scrolling through them"] = await _frames(page, lambda: _scroll(page))
    await page.keyboard.press("End")
    say("flooding")
    rows[f"{FLOOD} messages a second, at the end of them"] = await _frames(page, lambda: _flood(http))
    await page.close()
    table = "".join(f"| {what} | {figures} |\n" for what, figures in rows.items())
    return f"""\
| milliseconds a frame | median | p95 | p99 | longest |
|---|---:|---:|---:|---:|
{table}
All {MESSAGES:,} were there after {took:.1f} s of going up, and {drawn} of them were drawn. Browser, room and flood
share the machine; Chromium is headless and draws without a graphics card, a frame each 16.7 ms where it can. The
first row is the same page at rest."""


async def _go_up(page: Page) -> None:
    await page.locator(".scroller").focus()
    async with asyncio.timeout(DEADLINE):
        while not await page.get_by_text("The beginning of this thread").count():
            await page.keyboard.press("Home")
            await asyncio.sleep(0.02)


async def _scroll(page: Page) -> None:
    await page.mouse.move(VIEWPORT["width"] / 2, VIEWPORT["height"] / 2)
    for _ in range(TURNS):
        await page.mouse.wheel(0, WHEEL)
        await asyncio.sleep(0.02)


async def _flood(http: httpx2.AsyncClient) -> None:
    loop = asyncio.get_running_loop()
    due, end = loop.time(), loop.time() + SECONDS
    while due < end:
        said = [{"message": f"comment {due:.3f} {number} " + "word " * (number * 3)} for number in range(AT_ONCE)]
        await http.post("/api/threads/long/messages", json=said)
        due += AT_ONCE / FLOOD
        await asyncio.sleep(max(0.0, due - loop.time()))


async def _frames(page: Page, work: Callable[[], Awaitable[None]]) -> str:
    await page.evaluate("window.frameTimes.length = 0")
    await work()
    times = sorted(await page.evaluate("window.frameTimes"))
    of = [times[min(len(times) - 1, int(len(times) * part))] for part in (0.5, 0.95, 0.99, 1)]
    return " | ".join(f"{time:.1f}" for time in of)


if __name__ == "__main__":
    rooms.run("The page", _measure)
