"""The page for those who do not see it, or see it otherwise, as far as a program can tell."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.support.browsing import Answers, Room, Visits, in_a_browser, live, new_thread, rows, say
from tests.support.scripted_model import says

pytestmark = in_a_browser

FULL = [
    "# A heading\n\nSome *text* with `code`, and a [link](https://example.com).",
    "- one\n- two\n\n1. first\n2. second",
    "```python\nprint('你好')\n```",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "> quoted, `code`\n\n![a picture](https://example.com/a.png)\n\n- [x] done\n- [ ] not yet",
    "word " * 400,
]

themes = pytest.mark.parametrize("theme", ["light", "dark"])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def full(open_room: Room, answers: Answers) -> AsyncIterator[str]:
    """A thread in which everybody said everything."""
    thread = new_thread()
    answers.to("everything", says("\n\n".join(FULL)))
    await open_room.ask("POST", "chat", {"message": "Say everything.", "thread_id": thread})
    await open_room.settle(thread, api_policy="ignore", pause="wait")
    for name in ("Ann", "Bob"):
        for said in FULL:
            await open_room.say(thread, said, name=name)
    await open_room.feed(thread, FULL)
    yield thread


@themes
async def test_an_empty_thread_has_no_serious_fault(
    open_room: Room, visit: Visits, thread: str, theme: str, axe: str
) -> None:
    page = await visit(open_room, thread, color_scheme=theme)
    await live(page)
    await expect(page.get_by_text("Nothing was said here yet")).to_be_visible()
    assert await faults(page, axe) == []


@themes
@pytest.mark.parametrize("view", ["one stream", "side by side", "on a phone"])
async def test_a_full_thread_has_none(  # noqa: PLR0913, PLR0917  # two of them are the case
    open_room: Room, visit: Visits, full: str, theme: str, view: str, axe: str
) -> None:
    # Rows out of sight are not drawn, so the screen is as high as the whole thread.
    size = {"width": 390 if view == "on a phone" else 1280, "height": 8000}
    page = await visit(open_room, full, color_scheme=theme, viewport=size)
    await live(page)
    await expect(page.get_by_text("The agent is paused. Messages wait for it.")).to_be_visible()
    if view == "side by side":
        await page.get_by_role("button", name="Lanes side by side").click()
    await say(page, "one's own")
    await expect(rows(page, "one's own").last.get_by_text("waiting for the agent")).to_be_visible()
    await expect(page.get_by_role("link", name="a picture")).to_have_count(3)
    await expect(rows(page, "Say everything").first).to_be_in_viewport()
    assert await faults(page, axe) == []
    if view == "on a phone":
        await page.get_by_role("button", name="Show threads").click()
        await expect(page.get_by_role("button", name="New thread")).to_be_in_viewport()
        assert await faults(page, axe) == []


@themes
async def test_no_window_of_an_open_room_has_one(
    open_room: Room, visit: Visits, full: str, theme: str, axe: str
) -> None:
    page = await visit(open_room, full, color_scheme=theme)
    await live(page)
    for button, title in (
        ("Search", "Search"),
        ("Members", "Share"),
        ("Thread settings", "Thread settings"),
        ("New thread", "New thread"),
        ("Preferences", "Preferences"),
    ):
        await page.get_by_role("button", name=button).click()
        window = page.get_by_role("dialog", name=title)
        await expect(window).to_be_visible()
        if title == "Search":
            await window.get_by_role("textbox").fill("quoted")
            await expect(window.get_by_role("button").filter(has_text="quoted").first).to_be_visible()
        if title == "Thread settings":
            await window.get_by_text("More", exact=True).click()
            await window.get_by_label("Most messages that one reply answers").fill("none")
            await window.get_by_role("button", name="Save").click()
            await expect(window.get_by_role("alert")).to_be_visible()
        assert await faults(page, axe) == [], title
        await page.keyboard.press("Escape")
        await expect(window).to_be_hidden()


@themes
async def test_what_waits_and_what_failed_have_none(
    open_room: Room, visit: Visits, thread: str, theme: str, axe: str
) -> None:
    visit.allow("net::ERR_|WebSocket connection to")
    page = await visit(open_room, thread, color_scheme=theme)
    await live(page)
    await page.context.set_offline(True)
    await say(page, "said offline")
    await expect(rows(page, "said offline").get_by_text("not sent yet")).to_be_visible()
    assert await faults(page, axe) == []


@themes
async def test_signing_in_has_none_nor_any_window_behind_it(
    asking_room: Room, visit: Visits, theme: str, axe: str
) -> None:
    visit.allow("status of 401")
    page = await visit(asking_room, path="/#invite=m3i_", color_scheme=theme)
    await page.get_by_role("button", name="I have no account yet").click()
    await expect(page.get_by_role("button", name="Make an account")).to_be_visible()
    assert await faults(page, axe) == []
    page = await visit(asking_room, color_scheme=theme)
    await expect(page.get_by_role("heading", name="M3 room")).to_be_visible()
    assert await faults(page, axe) == []
    await page.get_by_label("Name").fill("admin")
    await page.get_by_label("Password", exact=True).fill("wrong")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    assert await faults(page, axe) == []
    await page.get_by_label("Password", exact=True).fill(asking_room.passwords["admin"])
    await page.get_by_role("button", name="Sign in").click()
    await live(page)
    for button, title in (
        ("Members", "Members"),
        ("New thread", "New thread"),
        ("Preferences", "Preferences"),
        ("Connect a real one", "Connect a real model"),
    ):
        await page.get_by_role("button", name=button).click()
        window = page.get_by_role("dialog", name=title)
        await expect(window).to_be_visible()
        if title == "Members":
            await window.get_by_role("button", name="Make a link").click()
            await expect(window.get_by_label("Invitation")).to_be_visible()
        assert await faults(page, axe) == [], title
        await page.keyboard.press("Escape")
        await expect(window).to_be_hidden()


async def faults(page: Page, axe: str) -> list[str]:
    """What axe finds serious or critical, each with the first element that has it.

    It leaves open whether text in the very colour of its background is meant to be read. Here all text is.
    """
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(axe)
    found: list[str] = await page.evaluate(
        """async () => {
            const {violations, incomplete} = await axe.run(document, {resultTypes: ['violations', 'incomplete']});
            const unseen = ({any}) => any.some(({data}) => data?.messageKey === 'equalRatio');
            return [...violations, ...incomplete.filter(({nodes}) => nodes.some(unseen))]
                .filter(({impact}) => impact === 'serious' || impact === 'critical')
                .map(({id, help, nodes}) => `${id}: ${help}: ${nodes[0].html} ${nodes[0].failureSummary}`);
        }"""
    )
    return found
