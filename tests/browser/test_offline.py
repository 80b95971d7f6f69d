"""The room goes, and comes back, or the way to it."""

import asyncio
import re
import signal
from collections.abc import Callable
from typing import Any

from playwright.async_api import Page, expect

from tests.support.browsing import AWAY, Answers, Room, Visits, address_of, composer, in_a_browser, live, rows, say
from tests.support.ports import free_ports
from tests.support.processes import Process
from tests.support.scripted_model import streams_until

pytestmark = in_a_browser


async def test_a_room_that_was_killed_is_come_back_to_and_nothing_is_lost_or_twice(
    start: Callable[..., Process], database_url: str, visit: Visits, thread: str
) -> None:
    visit.allow(AWAY)
    settings = {"PORT": str(free_ports(1)[0]), "DATABASE_URL": database_url}
    process = start("up", **settings)
    async with Room.at(await address_of(process)) as room:
        await room.settle(thread, user_policy="ignore")
        page = await visit(room, thread)
        await live(page)
        await say(page, "before")
        await expect(rows(page, "before").get_by_text("the agent is told not to answer")).to_be_visible()

        await asyncio.to_thread(process.kill)
        await says_that_it_is_offline(page)
        await say(page, "said offline")
        await say(page, "and this")
        await expect(rows(page, "said offline").get_by_text("not sent yet")).to_be_visible()

        await page.context.set_offline(True)  # so that others are first
        await address_of(start("up", **settings))
        for number in range(3):
            await room.say(thread, f"meanwhile {number}")
        await page.context.set_offline(False)
        await live(page)
        await expect(page.get_by_text("3 messages while you were away")).to_be_visible()
        await expect(rows(page, "and this").get_by_text("the agent is told not to answer")).to_be_visible()
        said = ["before", "meanwhile 0", "meanwhile 1", "meanwhile 2", "said offline", "and this"]
        assert await room.contents(thread) == said
        assert await shown(page) == said
        await page.reload()
        await expect(rows(page)).to_have_count(len(said))
        assert await shown(page) == said


async def test_a_room_that_is_asked_to_stop_is_come_back_to(
    start: Callable[..., Process], database_url: str, visit: Visits
) -> None:
    visit.allow(AWAY)
    settings = {"PORT": str(free_ports(1)[0]), "DATABASE_URL": database_url}
    process = start("up", **settings)
    async with Room.at(await address_of(process)) as room:
        page = await visit(room)
        await live(page)
        process.signal(signal.SIGTERM)
        await says_that_it_is_offline(page)
        await asyncio.to_thread(process.wait)
        await say(page, "are you back?")
        await address_of(start("up", **settings))
        await expect(rows(page, by="Agent")).to_contain_text("are you back?")
        assert (await room.contents("default")).count("are you back?") == 1


async def test_a_page_without_a_network_says_so_and_shows_what_it_missed(
    open_room: Room, visit: Visits, thread: str
) -> None:
    visit.allow(AWAY)
    await open_room.settle(thread, user_policy="ignore")
    page = await visit(open_room, thread)
    await live(page)
    await open_room.say(thread, "before")
    await expect(rows(page, "before")).to_be_visible()
    for time in ("once", "twice"):
        await page.context.set_offline(True)
        await says_that_it_is_offline(page)
        await open_room.say(thread, f"missed {time}")
        await page.context.set_offline(False)
        await live(page)
        await expect(rows(page, f"missed {time}")).to_be_visible()
        await expect(page.get_by_text("1 message while you were away")).to_have_count(1)
    assert await shown(page) == ["before", "missed once", "missed twice"]


async def test_a_reply_that_grows_stays_while_the_network_is_away_and_goes_on(
    open_room: Room, visit: Visits, answers: Answers, thread: str
) -> None:
    visit.allow(AWAY)
    goes_on = asyncio.Event()
    answers.to("grow on, please", streams_until(goes_on, "Once upon ", then="a time"))
    page = await visit(open_room, thread)
    await say(page, "grow on, please")
    reply = rows(page, by="Agent")
    await expect(reply).to_contain_text("Once upon")
    await page.context.set_offline(True)
    await says_that_it_is_offline(page)
    await expect(reply).to_contain_text("Once upon")
    goes_on.set()
    await page.context.set_offline(False)
    await live(page)
    await expect(reply).to_contain_text("Once upon a time")


async def test_what_is_said_offline_outlives_the_page(open_room: Room, visit: Visits, thread: str) -> None:
    visit.allow(AWAY)
    await open_room.settle(thread, user_policy="ignore")
    page = await visit(open_room, thread)
    await live(page)
    await page.context.set_offline(True)
    await says_that_it_is_offline(page)
    await say(page, "do not forget me")
    await expect(rows(page, "do not forget me").get_by_text("not sent yet")).to_be_visible()
    await page.close()
    await page.context.set_offline(False)
    another = await page.context.new_page()
    await another.goto(f"/?thread={thread}")
    await expect(rows(another, "do not forget me").get_by_text("the agent is told not to answer")).to_be_visible()
    await another.reload()
    await live(another)
    await expect(rows(another, "do not forget me")).to_have_count(1)
    assert await open_room.contents(thread) == ["do not forget me"]


async def says_that_it_is_offline(page: Page) -> None:
    await expect(page.get_by_role("status").filter(has_text=re.compile("^Offline"))).to_be_visible()
    await expect(
        page.get_by_text("You are offline. What you say goes out, once, when the room is back.")
    ).to_be_visible()
    await expect(composer(page)).to_be_editable()


async def shown(page: Page) -> list[Any]:
    """What the rows say, in their order."""
    said = await rows(page).locator("p").all_inner_texts()
    return [line for line in said if line != "the agent is told not to answer"]
