"""People at the page talk with each other and with the agent."""

import asyncio
import re

from playwright.async_api import expect

from tests.support.browsing import Answers, Room, Visits, composer, in_a_browser, live, rows, say
from tests.support.scripted_model import answers as answers_with
from tests.support.scripted_model import says, streams_until

pytestmark = in_a_browser


async def test_two_pages_in_a_thread_see_what_each_says(open_room: Room, visit: Visits, thread: str) -> None:
    ann, bob = await visit(open_room, thread, "Ann"), await visit(open_room, thread, "Bob")
    await live(ann)
    await live(bob)
    await say(ann, "hello Bob")
    await expect(rows(bob, "hello Bob", by="Ann")).to_be_visible()
    await expect(rows(ann, "hello Bob", by="You")).to_have_count(1)
    await say(bob, "hello Ann")
    await expect(rows(ann, "hello Ann", by="Bob")).to_be_visible()


async def test_they_see_who_is_here_and_who_types(open_room: Room, visit: Visits, thread: str) -> None:
    ann, bob = await visit(open_room, thread, "Ann"), await visit(open_room, thread, "Bob")
    await expect(ann.get_by_text("2 pages are open here").first).to_be_attached()
    await ann.locator("summary", has_text="2 pages are open here").click()
    await expect(ann.get_by_role("listitem").filter(has_text=re.compile("^(Ann|Bob)$"))).to_have_text(["Ann", "Bob"])
    await composer(bob).press_sequentially("hel")
    await expect(ann.get_by_text("Bob is typing…")).to_be_visible()
    await composer(bob).fill("")
    await expect(ann.get_by_text("Bob is typing…")).to_be_hidden()
    await bob.context.close()
    await expect(ann.get_by_text("1 page is open here").first).to_be_attached()


async def test_a_reply_grows_as_it_is_said(open_room: Room, visit: Visits, answers: Answers, thread: str) -> None:
    goes_on = asyncio.Event()
    answers.to("grow, please", streams_until(goes_on, "Once **upon** ", "a time", then=" there was a fox."))
    page = await visit(open_room, thread)
    await say(page, "grow, please")
    reply = rows(page, by="Agent")
    await expect(reply).to_contain_text("Once upon a time")
    await expect(reply).to_have_attribute("aria-busy", "true")
    goes_on.set()
    await expect(reply).to_contain_text("Once upon a time there was a fox.")
    await expect(reply).not_to_have_attribute("aria-busy", "true")
    await expect(reply.get_by_role("strong")).to_have_text("upon")
    await expect(reply.get_by_role("button", name="Go to: You: grow, please")).to_be_visible()
    await expect(rows(page)).to_have_count(2)


async def test_stop_keeps_what_was_said_and_marks_it(
    open_room: Room, visit: Visits, answers: Answers, thread: str
) -> None:
    answers.to("for ever", streams_until(asyncio.Event(), "Once ", "upon a time"))
    page = await visit(open_room, thread)
    await say(page, "speak for ever")
    await expect(rows(page, "Once upon a time")).to_be_visible()
    await page.get_by_role("button", name="Stop the agent").click()
    await expect(rows(page, "Once upon a time").get_by_text("stopped", exact=True)).to_be_visible()
    await expect(page.get_by_role("button", name="Stop the agent")).to_be_hidden()
    await page.reload()
    await expect(rows(page, "Once upon a time").get_by_text("stopped", exact=True)).to_be_visible()


async def test_a_turn_that_failed_says_why_and_is_tried_again(
    open_room: Room, visit: Visits, answers: Answers, thread: str
) -> None:
    answers.to("fail at first", answers_with("{}", 400), says("It works now."))
    page = await visit(open_room, thread)
    await say(page, "fail at first")
    said = rows(page, "fail at first").first
    await expect(said.get_by_text(re.compile(r"^no answer: \w"))).to_be_visible()
    await said.get_by_role("button", name="Try again").click()
    await expect(rows(page, "It works now.")).to_be_visible()
    await expect(said.get_by_text("answered")).to_be_visible()
    await expect(page.get_by_role("button", name="Try again")).to_be_hidden()
