"""People at the page talk with each other and with the agent."""

import asyncio
import re

from playwright.async_api import expect

from tests.support.browsing import Answers, Room, Visits, composer, hold, in_a_browser, live, rows, say
from tests.support.scripted_model import answers as answers_with
from tests.support.scripted_model import says, streams_until
from tests.support.until import until

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


async def test_a_reply_grows_as_it_is_said_also_for_who_comes_in_the_middle(
    open_room: Room, visit: Visits, answers: Answers, thread: str
) -> None:
    goes_on = asyncio.Event()
    answers.to("grow, please", streams_until(goes_on, "Once **upon** ", "a time", then=" there was a fox."))
    page = await visit(open_room, thread)
    await say(page, "grow, please")
    reply = rows(page, by="Agent")
    await expect(reply).to_contain_text("Once upon a time")
    await expect(reply).to_have_attribute("aria-busy", "true")
    late = await visit(open_room, thread)
    for came_in_the_middle in (late, page):
        await came_in_the_middle.reload()
        await expect(rows(came_in_the_middle, by="Agent")).to_have_text(re.compile(r"grow, pleaseOnce upon a time\s*$"))
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


async def test_what_goes_away_when_it_is_pressed_hands_the_keyboard_on(
    open_room: Room, visit: Visits, answers: Answers, thread: str
) -> None:
    answers.to("for ever", streams_until(asyncio.Event(), "Once ", "upon a time"))
    answers.to("fail once", answers_with("{}", 400), says("It works now."))
    page = await visit(open_room, thread)
    await live(page)

    async def press(name: str) -> None:
        await page.get_by_role("button", name=name, exact=True).focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name=name, exact=True)).to_be_hidden()

    await press("Tell me a story")
    await expect(composer(page)).to_be_focused()
    await expect(rows(page, "heard [user] Tell me a story")).to_be_visible()
    await say(page, "speak for ever")
    await expect(rows(page, "Once upon a time")).to_be_visible()
    await composer(page).fill("half a thought")
    await page.get_by_role("button", name="Stop the agent").focus()
    await page.keyboard.down("Enter")
    await expect(page.get_by_role("button", name="Stop the agent")).to_be_hidden()
    await expect(composer(page)).to_be_focused()
    await page.keyboard.down("Enter")  # which is still held
    await page.keyboard.up("Enter")
    await expect(composer(page)).to_have_value("half a thought")
    await open_room.settle(thread, pause="ignore")
    await page.get_by_role("button", name="Preferences").click()
    await page.keyboard.press("Escape")  # after which the page looks whether the agent is paused
    await expect(page.get_by_role("dialog")).to_be_hidden()
    await press("Go on")
    await expect(composer(page)).to_be_focused()
    await say(page, "fail once")
    await press("Try again")
    await expect(composer(page)).to_be_focused()
    await expect(rows(page, "It works now.")).to_be_visible()
    ends = asyncio.Event()
    answers.to("end by yourself", streams_until(ends, "Once upon ", then="the end."))
    await say(page, "end by yourself")
    await page.get_by_role("button", name="Stop the agent").focus()
    ends.set()
    await expect(rows(page, "Once upon the end.")).to_be_visible()
    await expect(composer(page)).to_be_focused()


async def test_a_livestream_plays_and_is_answered(open_room: Room, visit: Visits, thread: str) -> None:
    page = await visit(open_room, thread)
    await page.get_by_role("button", name="Play a livestream").click()
    await expect(rows(page, "mika: hello from Lisbon", by="livestream Program")).to_be_visible()
    await expect(rows(page, by="Agent").first).to_be_visible()
    await page.get_by_role("button", name="Stop the livestream").click()
    await expect(page.get_by_role("button", name="Stop the livestream")).to_be_hidden()


async def test_enter_sends_and_shift_enter_begins_a_line(open_room: Room, visit: Visits, thread: str) -> None:
    page = await visit(open_room, thread)
    await composer(page).press_sequentially("first")
    await composer(page).press("Shift+Enter")
    await composer(page).press_sequentially("second")
    await composer(page).press("Enter")
    await expect(rows(page, by="You")).to_contain_text(re.compile(r"first\s*second"))
    await expect(composer(page)).to_have_value("")
    await until_said(open_room, thread, "first\nsecond")


async def test_nothing_is_sent_that_is_blank_or_too_long(open_room: Room, visit: Visits, thread: str) -> None:
    page = await visit(open_room, thread)
    send = page.get_by_role("button", name="Send")
    for said, may in (("", False), (" \n ", False), ("汉" * 5461, True), ("汉" * 5462, False), ("a word", True)):
        await composer(page).fill(said)
        await expect(send).to_be_enabled(enabled=may)
        if not may:
            await composer(page).press("Enter")
    await send.click()
    await until_said(open_room, thread, "a word")


async def test_enter_is_the_input_methods_while_it_composes(open_room: Room, visit: Visits, thread: str) -> None:
    page = await visit(open_room, thread)
    await composer(page).focus()
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Input.imeSetComposition", {"text": "nihao", "selectionStart": 5, "selectionEnd": 5})
    await expect(composer(page)).to_have_value("nihao")
    await page.keyboard.press("Enter")
    await expect(composer(page)).to_have_value(re.compile("^nihao"))  # of which a real one takes the key
    await composer(page).fill("你好")
    # Safari ends the composition before it tells of the key
    await composer(page).evaluate(
        "field => field.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', keyCode: 229, bubbles: true}))"
    )
    await expect(composer(page)).to_have_value(re.compile("^你好"))
    await page.keyboard.press("Enter")
    await expect(composer(page)).to_have_value("")
    await until_said(open_room, thread, "你好")


async def test_all_of_it_works_by_keyboard(open_room: Room, visit: Visits, thread: str) -> None:
    page = await visit(open_room, thread)
    await expect(composer(page)).to_be_focused()
    await page.keyboard.type("by keyboard")
    await page.keyboard.press("Enter")
    await expect(rows(page, "by keyboard", by="You")).to_be_visible()
    await expect(composer(page)).to_be_focused()
    search = page.get_by_role("button", name="Search")
    for _ in range(10):
        await page.keyboard.press("Shift+Tab")
        if await search.evaluate("button => button === document.activeElement"):
            break
    await expect(search).to_be_focused()
    await page.keyboard.press("Enter")
    window = page.get_by_role("dialog", name="Search")
    await expect(window.get_by_role("textbox")).to_be_focused()
    await page.keyboard.type("keyboard")
    await expect(window.get_by_role("button").filter(has_text="by keyboard").first).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(window).to_be_hidden()
    await expect(search).to_be_focused()


async def test_whoever_closes_a_window_is_where_they_were(open_room: Room, visit: Visits, thread: str) -> None:
    page = await visit(open_room, thread)
    await live(page)
    opens = page.get_by_role("button", name="Thread settings")
    window = page.get_by_role("dialog", name="Thread settings")
    for how in ("Escape", "Close", "Cancel", "Save", "beside"):
        await opens.click()
        await expect(window.get_by_label("System prompt")).to_be_visible()
        if how == "Escape":
            await page.keyboard.press(how)
        elif how == "beside":
            await page.mouse.click(5, 400)
        else:
            await window.get_by_role("button", name=how).click()
        await expect(window).to_be_hidden()
        await expect(opens).to_be_focused()
    await page.get_by_role("link", name=re.compile("^default")).click()
    await expect(page.get_by_role("heading", name="default")).to_be_visible()
    await opens.click()
    await expect(window.get_by_label("System prompt")).to_be_visible()
    await page.go_back()  # to another thread, of which the window is then
    await expect(page.get_by_role("heading", name=thread)).to_be_attached()
    await expect(window.get_by_label("System prompt")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(window).to_be_hidden()
    await expect(composer(page)).to_be_focused()


async def test_a_key_that_is_held_opens_a_window_and_presses_nothing_in_it(
    open_room: Room, visit: Visits, thread: str
) -> None:
    page = await visit(open_room, thread)
    await live(page)
    for name in ("New thread", "Preferences"):
        await page.get_by_role("button", name=name).focus()
        await hold(page, "Enter")
        await page.keyboard.up("Enter")
        await expect(page.get_by_role("dialog", name=name)).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_be_hidden()
        await expect(page.get_by_role("heading", name=thread)).to_be_visible()


async def test_the_first_tab_leads_to_what_one_wants_to_say(open_room: Room, visit: Visits, thread: str) -> None:
    page = await visit(open_room, thread, has_touch=True, is_mobile=True)  # where the page does not lead there itself
    await live(page)
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to what you want to say")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(composer(page)).to_be_focused()


async def test_what_is_found_is_gone_to(open_room: Room, visit: Visits, thread: str) -> None:
    await open_room.settle(thread, api_policy="ignore")
    await open_room.feed(thread, ["the needle", *(f"hay {number}" for number in range(450))])
    page = await visit(open_room, thread)
    await expect(rows(page, "hay 449")).to_be_visible()
    await page.get_by_role("button", name="Search").click()
    window = page.get_by_role("dialog", name="Search")
    await window.get_by_role("textbox").fill("straw")
    await expect(window.get_by_text("Nothing was found.")).to_be_visible()
    await window.get_by_role("textbox").fill("needle")
    await window.get_by_role("button").filter(has_text="the needle").click()
    await expect(window).to_be_hidden()
    await expect(rows(page, "the needle")).to_be_in_viewport()
    await expect(rows(page, "the needle")).to_be_focused()


async def until_said(room: Room, thread: str, said: str) -> None:
    """Wait until that is all that people said in it."""

    async def is_there() -> bool:
        messages = await room.history(thread)
        return [message["content"] for message in messages if message["source"] == "user"] == [said]

    await until(is_there)
