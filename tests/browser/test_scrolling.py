"""Long threads and floods: what is shown of them, and what stays in place."""

import asyncio
import re

import pytest_asyncio
from playwright.async_api import Locator, Page, Route, expect

from tests.support.browsing import Answers, Room, Visits, in_a_browser, live, rows
from tests.support.scripted_model import ScriptedModel, holds, says
from tests.support.until import until

pytestmark = in_a_browser

#: Messages of a long thread, of which the page reads the newest at first.
LONG = 900
#: Messages a second of a flood, and for how many seconds.
RATE, SECONDS = 200, 4
FLOOD = RATE * SECONDS
#: Rows that may be drawn at once.
DRAWN = 120
#: Pixels by which what one reads may move.
TOLERANCE = 4


@pytest_asyncio.fixture(loop_scope="session")
async def long_thread(open_room: Room, thread: str) -> str:
    await open_room.settle(thread, api_policy="ignore")
    for start in range(0, LONG, 450):
        await open_room.feed(thread, (f"number {n}. {'word ' * (n % 40)}" for n in range(start, start + 450)))
    return thread


async def test_a_flood_is_followed_by_a_page_that_stays_usable(open_room: Room, visit: Visits, thread: str) -> None:
    await open_room.settle(thread, api_policy="ignore")
    page = await visit(open_room, thread)
    await live(page)
    await open_room.feed(thread, ["the first"])
    await expect(rows(page, "the first")).to_be_visible()
    flooding = asyncio.create_task(flood(open_room, thread))
    window = page.get_by_role("dialog", name="Thread settings")
    looks = 0
    while not flooding.done():
        await page.get_by_role("button", name="Thread settings").click(timeout=5_000)
        await expect(window.get_by_label("System prompt")).to_be_visible(timeout=5_000)
        await page.keyboard.press("Escape")
        await expect(window).to_be_hidden(timeout=5_000)
        await expect(newest(page)).to_be_hidden(timeout=1)
        assert await rows(page).count() < DRAWN
        looks += 1
    await flooding
    assert looks > 0
    await expect(rows(page, f"flood {FLOOD - 1}.")).to_be_in_viewport()
    await expect(newest(page)).to_be_hidden()
    assert await rows(page).count() < DRAWN


async def test_who_reads_further_up_is_told_what_is_new_below(open_room: Room, visit: Visits, long_thread: str) -> None:
    page = await visit(open_room, long_thread)
    await live(page)
    await wheel(page, -600)
    await expect(newest(page)).to_have_text("To the newest")
    reading, y = await read_at(page)
    await flood(open_room, long_thread)
    await expect(newest(page)).to_have_text(f"{FLOOD} new below")
    assert abs(await top_of(reading) - y) <= TOLERANCE
    await newest(page).click()
    await expect(rows(page, f"flood {FLOOD - 1}.")).to_be_in_viewport()
    await expect(newest(page)).to_be_hidden()


async def test_older_messages_come_above_without_moving_what_is_read(
    open_room: Room, visit: Visits, long_thread: str
) -> None:
    page = await visit(open_room, long_thread)
    await live(page)
    await expect(rows(page, f"number {LONG - 1}.")).to_be_in_viewport()
    comes, asked = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        asked.set()
        await comes.wait()
        await route.continue_()

    await page.route("**/history?*before=*", hold)
    while not asked.is_set():
        await wheel(page, -900)
    await expect(page.get_by_text("Reading older messages…")).to_be_visible()
    reading, y = await read_at(page)
    comes.set()
    await expect(page.get_by_text("Reading older messages…")).to_be_hidden()
    assert abs(await top_of(reading) - y) <= TOLERANCE
    await page.unroute_all()
    while not await page.get_by_text("The beginning of this thread").is_visible():
        await wheel(page, -3_000)
    await expect(rows(page, "number 0.")).to_be_visible()
    assert await rows(page).count() < DRAWN


async def test_a_reply_to_many_leads_to_each_however_far_above(
    open_room: Room, visit: Visits, answers: Answers, model: ScriptedModel, thread: str
) -> None:
    goes_on = asyncio.Event()
    answers.to("question 2", holds(goes_on, says("All of you are right.")))
    await open_room.settle(thread, pause="wait")
    await open_room.feed(thread, [f"question {n}" for n in range(3)])
    await open_room.settle(thread)
    await until(lambda: any("question 2" in asked for asked in model.prompts))
    await open_room.settle(thread, api_policy="ignore")
    for start in range(0, 800, 400):
        await open_room.feed(thread, [f"filler {start + n}" for n in range(400)])
    goes_on.set()
    page = await visit(open_room, thread)
    reply = rows(page, "All of you are right.", by="Agent")
    await expect(reply).to_be_visible()
    await reply.get_by_text(re.compile(r"Answers \d messages")).click()
    await reply.get_by_role("button", name="Go to: a message further up").first.click()
    question = rows(page, "question 0")
    await expect(question).to_be_in_viewport()
    await expect(question).to_be_focused()
    await question.get_by_role("button", name="answered").click()
    await expect(reply).to_be_in_viewport()


async def test_a_page_that_nobody_touches_stays_at_the_end(open_room: Room, visit: Visits, long_thread: str) -> None:
    page = await visit(open_room, long_thread)
    await live(page)
    for width in (700, 1280, 400):
        await page.set_viewport_size({"width": width, "height": 720})
        await open_room.feed(long_thread, [f"at {width} pixels. {'word ' * 100}"])
        await expect(rows(page, f"at {width} pixels.")).to_be_in_viewport()
        await expect(newest(page)).to_be_hidden()


async def test_who_is_at_the_end_stays_there_when_the_last_message_is_folded(
    open_room: Room, visit: Visits, long_thread: str
) -> None:
    page = await visit(open_room, long_thread)
    await live(page)
    await open_room.feed(long_thread, [f"the longest. {'word ' * 600}"])
    longest = rows(page, "the longest.")
    await longest.get_by_role("button", name="Show all").click()
    await longest.get_by_role("button", name="Show less").click()
    await expect(longest.get_by_role("button", name="Show all")).to_be_in_viewport()
    await open_room.feed(long_thread, ["after the longest"])
    await expect(rows(page, "after the longest")).to_be_in_viewport()
    await expect(newest(page)).to_be_hidden()


async def flood(room: Room, thread: str) -> None:
    """Messages at that rate, in four batches a second."""
    batch = RATE // 4
    for start in range(0, FLOOD, batch):
        await asyncio.gather(
            room.feed(thread, [f"flood {start + n}. {'word ' * (n % 30)}" for n in range(batch)]),
            asyncio.sleep(0.25),  # what makes it a rate
        )


def newest(page: Page) -> Locator:
    """What leads down, where one is not at the end."""
    return page.get_by_role("button", name=re.compile(r"^(To the newest|[\d,]+ new below)$"))


async def wheel(page: Page, pixels: int) -> None:
    """Scroll as a reader does, and wait until it comes to rest."""
    feed = page.get_by_role("feed")
    await feed.hover()
    moves = await feed.evaluate(
        """feed => {
            feed.rests = new Promise(resolve => feed.addEventListener("scrollend", resolve, {once: true}));
            return feed.scrollTop > 0;
        }"""
    )
    await page.mouse.wheel(0, pixels)
    if moves:
        await feed.evaluate("feed => feed.rests.then(() => null)")


async def read_at(page: Page) -> tuple[Locator, float]:
    """A message in the middle of the page, and where it is."""
    name = await page.get_by_role("feed").evaluate(
        """feed => {
            const {top, height} = feed.getBoundingClientRect();
            const rows = [...feed.querySelectorAll("article")];
            return rows.find(row => row.getBoundingClientRect().top > top + height / 3).id;
        }"""
    )
    reading = page.locator(f"[id='{name}']")
    return reading, await top_of(reading)


async def top_of(row: Locator) -> float:
    """Where it is, once two frames in succession leave it there: rows above may still have to be measured."""
    top: float = await row.evaluate(
        """async row => {
            const top = () => row.getBoundingClientRect().top;
            const frame = () => new Promise(requestAnimationFrame);
            let last;
            do {
                last = top();
                await frame();
                await frame();
            } while (top() !== last);
            return last;
        }"""
    )
    return top
