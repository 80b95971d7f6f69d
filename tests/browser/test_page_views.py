"""The ways to look at a room: its lanes, threads and settings, languages, and small screens."""

import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.support.browsing import Room, Visits, composer, in_a_browser, live, look_again, new_thread, rows, say

pytestmark = in_a_browser

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


# ---- Lanes


async def said_in_each_lane(open_room: Room, visit: Visits, thread: str) -> Page:
    page = await visit(open_room, thread)
    await say(page, "a person's")
    await expect(rows(page, by="Agent")).to_be_visible()
    await open_room.settle(thread, api_policy="ignore")
    await open_room.feed(thread, ["a program's"])
    return page


async def test_lanes_are_left_out_and_kept_so(open_room: Room, visit: Visits, thread: str) -> None:
    page = await said_in_each_lane(open_room, visit, thread)
    people, programs, agent = (
        page.get_by_role("button", name=f"Show {lane}") for lane in ("people", "programs", "agent")
    )
    await expect(rows(page)).to_have_count(3)
    await programs.click()
    await expect(rows(page, "a program's")).to_be_hidden()
    await expect(rows(page)).to_have_count(2)
    await open_room.feed(thread, ["another of a program"])
    await agent.click()
    await expect(rows(page)).to_have_count(1)
    await people.click()  # one is left always
    await expect(people).to_have_attribute("aria-pressed", "true")
    await page.reload()
    await expect(rows(page, "a person's")).to_be_visible()
    await expect(rows(page)).to_have_count(1)
    await programs.click()
    await expect(rows(page, "another of a program")).to_be_visible()


async def test_lanes_are_shown_side_by_side(open_room: Room, visit: Visits, thread: str) -> None:
    page = await said_in_each_lane(open_room, visit, thread)
    await page.get_by_role("button", name="Lanes side by side").click()
    for lane, said in (("People", "a person's"), ("Programs", "a program's"), ("Agent", "heard [user]")):
        column = page.get_by_role("region", name=lane).get_by_role("feed")
        await expect(column.get_by_role("article")).to_have_count(1)
        await expect(column.get_by_role("article")).to_contain_text(said)
    await say(page, "and another")
    await expect(page.get_by_role("region", name="People")).to_contain_text("and another")
    await expect(page.get_by_role("region", name="Agent")).to_contain_text("heard [user] and another")
    await page.get_by_role("region", name="Agent").get_by_role("button", name="Go to: You: and another").click()
    await expect(rows(page, "and another", by="You")).to_be_focused()


# ---- Threads


async def test_what_is_said_in_another_thread_is_counted_until_it_is_seen(
    open_room: Room, visit: Visits, thread: str
) -> None:
    other = new_thread()
    for each in (thread, other):
        await open_room.settle(each, user_policy="ignore")
        await open_room.say(each, "of old")
    page = await visit(open_room, thread)
    listed = page.get_by_role("navigation", name="Threads").get_by_role("link", name=re.compile(f"^{other}( |$)"))
    await expect(listed).to_be_visible()
    for number in range(3):
        await open_room.say(other, f"new {number}")
    await look_again(page)
    await expect(listed).to_have_accessible_name(f"{other} 3 unread")
    await listed.click()
    await expect(page.get_by_role("heading", name=other)).to_be_visible()
    await expect(rows(page, "new 2")).to_be_in_viewport()
    await expect(listed).not_to_have_accessible_name(re.compile("unread"))
    await page.go_back()
    await expect(page.get_by_role("heading", name=thread)).to_be_visible()
    await open_room.say(other, "newer")
    await look_again(page)
    await expect(listed).to_have_accessible_name(f"{other} 1 unread")


async def test_a_thread_that_others_begin_appears_in_the_list(open_room: Room, visit: Visits, thread: str) -> None:
    page = await visit(open_room, thread)
    await live(page)
    begun = new_thread()
    await open_room.say(begun, "here I am")
    await look_again(page)
    await expect(page.get_by_role("navigation").get_by_role("link", name=re.compile(f"^{begun}( |$)"))).to_be_visible()


async def test_a_new_thread_is_opened_under_a_name_that_is_allowed(open_room: Room, visit: Visits, thread: str) -> None:
    page = await visit(open_room)
    await page.get_by_role("button", name="New thread").click()
    window = page.get_by_role("dialog", name="New thread")
    await expect(window.get_by_label("Name of the thread")).to_have_value(re.compile(r"^[a-z]+-[a-z]+-\d+$"))
    await window.get_by_label("Name of the thread").fill("no spaces, please")
    await window.get_by_role("button", name="Create").click()
    await expect(window.get_by_role("alert")).to_contain_text("Letters, digits")
    await window.get_by_label("Name of the thread").fill(thread)
    await window.get_by_role("button", name="Create").click()
    await expect(window).to_be_hidden()
    await expect(page).to_have_url(f"{open_room.address}/?thread={thread}")
    await expect(page.get_by_role("heading", name=thread)).to_be_visible()
    await expect(page.get_by_text("Nothing was said here yet")).to_be_visible()
    await say(page, "first")
    await expect(rows(page, by="Agent")).to_contain_text("heard [user] first")


async def test_one_skips_over_the_messages_and_back(open_room: Room, visit: Visits, thread: str) -> None:
    await open_room.settle(thread, api_policy="ignore")
    await open_room.feed(thread, [f"number {number}" for number in range(50)])
    page = await visit(open_room, thread)
    await expect(rows(page, "number 49")).to_be_visible()
    await composer(page).focus()
    await page.keyboard.press("Shift+Tab")
    await expect(page.get_by_role("link", name="Skip back to the top of the thread")).to_be_in_viewport()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name=thread)).to_be_focused()
    await expect(page).to_have_url(f"{open_room.address}/?thread={thread}")
    await page.reload()
    await expect(rows(page, "number 49")).to_be_visible()
    await page.get_by_role("link", name="Skip to what you want to say").focus()
    await page.keyboard.press("Enter")
    await expect(composer(page)).to_be_focused()


async def test_what_is_typed_stays_in_its_thread(open_room: Room, visit: Visits, thread: str) -> None:
    page = await visit(open_room, thread)
    await composer(page).fill("half a thou")
    await page.get_by_role("navigation").get_by_role("link", name=re.compile("^default")).click()
    await expect(page.get_by_role("heading", name="default")).to_be_visible()
    await expect(composer(page)).to_have_value("")
    await page.go_back()
    await expect(composer(page)).to_have_value("half a thou")
    await page.reload()
    await expect(composer(page)).to_have_value("half a thou")
    await expect(composer(page)).to_be_focused()
    await page.keyboard.type("ght")
    await page.keyboard.press("Enter")
    await expect(rows(page, "half a thought", by="You")).to_be_visible()
    await page.reload()
    await live(page)
    await expect(composer(page)).to_have_value("")


async def test_what_a_reply_answers_is_told_without_its_markdown(open_room: Room, visit: Visits, thread: str) -> None:
    page = await visit(open_room, thread)
    await say(page, "**bold** and `code` and [a link](https://example.com)")
    answered = rows(page, by="Agent").get_by_role("button", name="Go to: You: bold and code and a link")
    await expect(answered).to_have_text("You bold and code and a link")


async def test_a_link_to_a_thread_is_shared(open_room: Room, visit: Visits, thread: str) -> None:
    page = await visit(open_room, thread, permissions=["clipboard-read", "clipboard-write"])
    await page.get_by_role("button", name="Members").click()
    await page.get_by_role("dialog", name="Share").get_by_role("button", name="Copy the link").click()
    await expect(page.get_by_role("status").filter(has_text="Copied")).to_have_count(1)
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied == f"{open_room.address}/?thread={thread}"


# ---- Settings


async def test_an_agent_is_paused_and_goes_on(open_room: Room, visit: Visits, thread: str) -> None:
    page = await visit(open_room, thread)
    await page.get_by_role("button", name="Thread settings").click()
    window = page.get_by_role("dialog", name="Thread settings")
    await window.get_by_role("radio", name="Messages wait").check()
    await window.get_by_label("System prompt").fill("You host a show.")
    await window.get_by_label("What programs' messages get").select_option("no reply")
    await window.get_by_text("More", exact=True).click()
    await window.get_by_label("Most messages that one reply answers").fill("0")
    await window.get_by_role("button", name="Save").click()
    await expect(window.get_by_role("alert")).to_contain_text("A whole number from 1 to 1,000.")
    await window.get_by_label("Most messages that one reply answers").fill("20")
    await window.get_by_role("button", name="Save").click()
    await expect(window).to_be_hidden()
    await expect(page.get_by_text("The agent is paused. Messages wait for it.")).to_be_visible()
    settings = (await open_room.ask("GET", f"threads/{thread}/settings"))["settings"]
    assert {name: value for name, value in settings.items() if value is not None} == {
        "pause": "wait",
        "system_prompt": "You host a show.",
        "api_policy": "ignore",
        "batch_messages": 20,
    }
    await say(page, "are you there?")
    await expect(rows(page, "are you there?").get_by_text("waiting for the agent")).to_be_visible()
    await page.get_by_role("button", name="Go on").click()
    await expect(rows(page, by="Agent")).to_contain_text("heard [user] are you there?")
    await expect(page.get_by_text("The agent is paused")).to_be_hidden()
    await page.get_by_role("button", name="Thread settings").click()
    await expect(window.get_by_label("System prompt")).to_have_value("You host a show.")


async def test_a_name_is_chosen_and_kept(open_room: Room, visit: Visits, thread: str) -> None:
    await open_room.settle(thread, user_policy="ignore")
    page, other = await visit(open_room, thread, "Ann"), await visit(open_room, thread, "Bob")
    await page.get_by_role("button", name="Preferences").click()
    window = page.get_by_role("dialog", name="Preferences")
    await window.get_by_label("Your name").fill("安娜 🦊")
    await window.get_by_role("button", name="Save").click()
    await expect(window).to_be_hidden()
    await live(page)
    await say(page, "with another name")
    await expect(rows(other, "with another name", by="安娜 🦊")).to_be_visible()
    await page.reload()
    await expect(rows(page, "with another name", by="You")).to_be_visible()


async def test_a_theme_is_chosen_and_kept(open_room: Room, visit: Visits, thread: str) -> None:
    page = await visit(open_room, thread, color_scheme="light")
    light = await background(page)
    await page.emulate_media(color_scheme="dark")
    await page.wait_for_function("light => getComputedStyle(document.body).backgroundColor !== light", arg=light)
    dark = await background(page)
    await page.get_by_role("button", name="Preferences").click()
    await page.get_by_role("radio", name="light").check()
    assert await background(page) == light
    await page.reload()
    await live(page)
    assert await background(page) == light
    await page.get_by_role("button", name="Preferences").click()
    await page.get_by_role("radio", name="as the system").check()
    assert await background(page) == dark


async def background(page: Page) -> str:
    colour: str = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    return colour


# ---- Languages


async def test_a_chinese_browser_is_spoken_to_in_chinese(open_room: Room, visit: Visits, thread: str) -> None:
    page = await visit(open_room, thread, locale="zh-CN")
    await expect(page.get_by_text("这里还没有消息")).to_be_visible()
    await expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    await page.get_by_role("textbox", name="消息").fill("你好")
    await page.get_by_role("button", name="发送").click()
    await expect(rows(page, "你好", by="我")).to_be_visible()
    await expect(rows(page, "heard [user] 你好", by="智能体")).to_be_visible()


async def test_another_language_is_chosen_and_kept(open_room: Room, visit: Visits, thread: str) -> None:
    page = await visit(open_room, thread, locale="zh-CN")
    await page.get_by_role("button", name="偏好设置").click()
    await page.get_by_role("radio", name="English").check()
    await expect(page.get_by_role("dialog", name="Preferences")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_text("Nothing was said here yet")).to_be_visible()
    await page.reload()
    await expect(page.get_by_text("Nothing was said here yet")).to_be_visible()
    await expect(page.locator("html")).to_have_attribute("lang", "en")


async def test_of_a_browsers_languages_the_first_of_ours_is_spoken(open_room: Room, visit: Visits, thread: str) -> None:
    page = await visit(open_room, thread, locale="de-DE")
    await expect(page.get_by_text("Nothing was said here yet")).to_be_visible()


# ---- Small screens and long words


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
async def test_on_a_phone_the_list_of_threads_opens_and_closes(
    open_room: Room, visit: Visits, thread: str, motion: str
) -> None:
    await open_room.say(thread, "hello")
    page = await visit(open_room, thread, **PHONE | {"reduced_motion": motion})
    threads = page.get_by_role("navigation", name="Threads")
    here = threads.get_by_role("link", name=re.compile(f"^{thread}( |$)"))
    shows = page.get_by_role("button", name="Show threads")
    await expect(rows(page, "hello").first).to_be_visible()
    await expect(here).not_to_be_in_viewport()
    await shows.tap()
    await expect(here).to_be_in_viewport()
    await threads.get_by_role("button", name="Hide threads").tap()
    await expect(here).not_to_be_in_viewport()
    await shows.tap()
    await expect(threads.get_by_role("button", name="Hide threads")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(here).not_to_be_in_viewport()
    await expect(shows).to_be_focused()
    window = page.get_by_role("dialog", name="New thread")
    for how in ("Escape", "Close"):
        await shows.tap()
        await page.get_by_role("button", name="New thread").tap()
        if how == "Escape":
            await page.keyboard.press(how)  # at once
        else:
            await window.get_by_role("button", name=how).tap()
        await expect(window).to_be_hidden()
        await expect(here).not_to_be_in_viewport()
        await expect(shows).to_be_focused()
    await shows.tap()
    await threads.get_by_role("link", name=re.compile("^default")).tap()
    await expect(page.get_by_role("heading", name="default")).to_be_in_viewport()
    await expect(here).not_to_be_in_viewport()
    await fits(page)


async def test_a_window_stays_where_one_selects_to_or_from_beside_it(
    open_room: Room, visit: Visits, thread: str
) -> None:
    page = await visit(open_room, thread)
    await live(page)
    await page.get_by_role("button", name="Thread settings").click()
    window = page.get_by_role("dialog", name="Thread settings")
    box = await window.get_by_label("System prompt").bounding_box()
    assert box
    within, beside = (box["x"] + 20, box["y"] + 20), (5, 400)
    for begins, ends in ((within, beside), (beside, within)):
        await page.mouse.move(*begins)
        await page.mouse.down()
        await page.mouse.move(*ends)
        await page.mouse.up()
        await expect(window).to_be_visible()
    await page.mouse.click(*beside)
    await expect(window).to_be_hidden()


async def test_a_tap_beside_a_window_closes_it_and_presses_nothing_behind_it(
    open_room: Room, visit: Visits, thread: str
) -> None:
    page = await visit(open_room, thread, **PHONE)
    await live(page)
    behind = await page.get_by_role("button", name="Show threads").bounding_box()
    assert behind
    search = page.get_by_role("button", name="Search")
    await search.tap()
    await expect(page.get_by_role("dialog").get_by_role("textbox")).to_be_visible()
    await page.touchscreen.tap(behind["x"] + behind["width"] / 2, behind["y"] + behind["height"] / 2)
    await expect(page.get_by_role("dialog")).to_be_hidden()
    await expect(search).to_be_focused()
    await expect(page.get_by_role("button", name="Hide threads")).to_be_hidden()


@pytest.mark.parametrize("screen", ["phone", "desktop"])
async def test_long_words_and_long_messages_fit(open_room: Room, visit: Visits, thread: str, screen: str) -> None:
    await open_room.settle(thread, user_policy="ignore", api_policy="ignore")
    long = [
        "w" * 2_000,
        "汉" * 2_000,
        f"https://example.com/{'path/' * 60}",
        f"```\n{'code ' * 200}\n```",
        f"| {'cell | ' * 30}\n|{'---|' * 30}\n| {'cell | ' * 30}",
        "> " * 30 + "deep",
        f"# {'H' * 300}",
        "🦊" * 300,
    ]
    for said in long:
        for name in ("N" * 32, "Ann"):
            await open_room.say(thread, said, name=name)
    await open_room.feed(thread, [*long, "the last"], program="p" * 128)
    page = await visit(open_room, thread, **PHONE if screen == "phone" else {})
    await expect(rows(page, "the last")).to_be_in_viewport()
    while not await page.get_by_text("The beginning of this thread").is_visible():
        await fits(page)
        await page.get_by_role("feed").evaluate("feed => feed.dispatchEvent(new WheelEvent('wheel', {bubbles: true}))")
        await page.get_by_role("feed").evaluate("feed => { feed.scrollTop -= 500 }")
    await fits(page)
    await page.get_by_role("button", name="Lanes side by side").click()
    for lane in ("People", "Programs"):
        await expect(page.get_by_role("region", name=lane).get_by_role("article").first).to_be_visible()
    await fits(page)


async def test_a_long_message_is_folded_until_it_is_asked_for(open_room: Room, visit: Visits, thread: str) -> None:
    await open_room.settle(thread, user_policy="ignore")
    page = await visit(open_room, thread)
    await say(page, f"{'word ' * 390}the end of it")
    row = rows(page, "the end of it", by="You")
    await expect(row.get_by_role("button", name="Show all")).to_be_visible()
    height = await row.evaluate("row => row.clientHeight")
    await row.get_by_role("button", name="Show all").click()
    await expect(row.get_by_role("button", name="Show less")).to_be_visible()
    assert await row.evaluate("row => row.clientHeight") > height


@pytest.mark.parametrize(("width", "height"), [(812, 375), (667, 375), (640, 320)])
async def test_on_a_phone_held_sideways_half_of_the_height_is_for_messages(
    open_room: Room, visit: Visits, thread: str, width: int, height: int
) -> None:
    await open_room.settle(thread, user_policy="ignore")
    await open_room.say(thread, "hello")
    page = await visit(open_room, thread, **PHONE | {"viewport": {"width": width, "height": height}})
    await expect(rows(page, "hello")).to_be_in_viewport()
    feed = await page.get_by_role("feed").bounding_box()
    assert feed
    assert feed["height"] >= height / 2
    await fits(page)
    for button in await page.get_by_role("main").get_by_role("button").all():
        await expect(button).to_be_in_viewport(ratio=1)
    await page.get_by_role("button", name="Show threads").tap()
    await expect(page.get_by_role("button", name="New thread")).to_be_in_viewport(ratio=1)
    await expect(page.get_by_role("button", name="Preferences")).to_be_in_viewport(ratio=1)


async def fits(page: Page) -> None:
    """Nothing is wider than the page, nor anything that is said than the list of it, by which it may be cut off."""
    over = await page.evaluate(
        """() => {
            const over = element => element.scrollWidth - element.clientWidth;
            const feeds = [...document.querySelectorAll('[role=feed]')];
            return [over(document.documentElement), ...feeds.flatMap(feed => [
                over(feed),
                ...[...feed.querySelectorAll('article *')]
                    .filter(said => !said.parentElement.closest('.wide, pre'))
                    .map(said => said.getBoundingClientRect().right - feed.getBoundingClientRect().right),
            ])];
        }"""
    )
    assert max(over) <= 0
