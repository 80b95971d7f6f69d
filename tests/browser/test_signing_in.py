"""A room that asks who somebody is, as its page shows it."""

import re
from collections.abc import Callable

from playwright.async_api import Page, Response, WebSocket, expect

from tests.support.browsing import (
    AWAY,
    Room,
    Visits,
    address_of,
    composer,
    hold,
    in_a_browser,
    live,
    look_again,
    rows,
    say,
    sign_in,
)
from tests.support.processes import Process

pytestmark = in_a_browser

#: What the browser says of an answer that refuses.
REFUSED = r"status of 40[134]"


async def test_a_one_time_password_is_changed_by_using_it(asking_room: Room, visit: Visits) -> None:
    visit.allow(REFUSED)
    one_time = (await asking_room.ask("POST", "users", {"name": "newcomer"}))["password"]
    page = await visit(asking_room)
    await expect(page.get_by_label("Name")).to_be_focused()
    await sign_in(page, "newcomer", "a wrong one")
    await expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    await page.get_by_label("简体中文").check()
    await expect(page.get_by_role("alert")).to_have_text("名字或密码不正确。")
    await page.get_by_label("English").check()
    await sign_in(page, "newcomer", one_time)
    await expect(page.get_by_text("This password was for one sign-in.")).to_be_visible()
    await expect(page.get_by_label("New password")).to_be_focused()
    await page.get_by_label("New password").fill("short")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_have_text("A password has 8 to 256 characters.")
    await page.get_by_label("New password").fill("a password of my own")
    await page.get_by_role("button", name="Sign in").click()
    await live(page)
    await expect(page.get_by_role("button", name="newcomer Preferences")).to_be_visible()
    await say(page, "I am in")
    await expect(rows(page, "I am in", by="You")).to_be_visible()


async def test_a_sign_in_is_kept_until_it_is_ended(asking_room: Room, visit: Visits) -> None:
    visit.allow(REFUSED)
    ann = await asking_room.person()
    page = await visit(asking_room)
    await sign_in(page, ann, asking_room.passwords[ann])
    await live(page)
    await page.reload()
    await live(page)
    another = await page.context.new_page()
    await another.goto("/")
    await live(another)
    await page.get_by_role("button", name="Preferences").click()
    window = page.get_by_role("dialog", name="Preferences")
    await expect(window.get_by_text(f"Signed in as {ann}")).to_be_visible()
    await window.get_by_role("button", name="Sign out").click()
    for each in (page, another):
        await expect(each.get_by_role("button", name="Sign in")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("button", name="Sign in")).to_be_visible()


async def test_who_signs_out_while_the_room_is_away_is_asked_who_they_are_once_it_is_back(
    asking_room: Room, visit: Visits
) -> None:
    visit.allow(AWAY)
    ann = await asking_room.person()
    page = await visit(asking_room)
    await sign_in(page, ann, asking_room.passwords[ann])
    await live(page)
    await page.context.set_offline(True)
    await page.get_by_role("button", name="Preferences").click()
    await page.get_by_role("dialog", name="Preferences").get_by_role("button", name="Sign out").click()
    await expect(page.get_by_text("The room cannot be reached just now.")).to_be_visible()
    await expect(page.get_by_role("main")).not_to_contain_text(ann)
    await page.context.set_offline(False)
    await expect(page.get_by_role("button", name="Sign in")).to_be_visible()


async def test_a_password_is_changed(asking_room: Room, visit: Visits) -> None:
    visit.allow(REFUSED)
    ann = await asking_room.person()
    page = await signed_in(visit, asking_room, ann)
    await page.get_by_role("button", name="Preferences").click()
    window = page.get_by_role("dialog", name="Preferences")
    await window.get_by_text("Change password").first.click()
    await window.get_by_label("Password", exact=True).fill("wrong")
    await window.get_by_label("New password").fill("another password")
    await window.get_by_role("button", name="Change password").click()
    await expect(window.get_by_role("alert")).to_have_text("The password is wrong.")
    await window.get_by_label("Password", exact=True).fill(asking_room.passwords[ann])
    await window.get_by_role("button", name="Change password").click()
    await expect(window.get_by_text("The password is changed.")).to_be_visible()
    other = await visit(asking_room)
    await sign_in(other, ann, "another password")
    await live(other)


async def test_a_private_thread_is_seen_by_who_was_added(asking_room: Room, visit: Visits) -> None:
    visit.allow(REFUSED)
    ann, bob = await asking_room.person(), await asking_room.person()
    owner, other = await signed_in(visit, asking_room, ann), await signed_in(visit, asking_room, bob)
    await owner.get_by_role("button", name="New thread").click()
    await owner.get_by_role("dialog").get_by_role("button", name="Create").click()
    await expect(owner).to_have_url(re.compile("thread="))
    await live(owner)
    thread = owner.url.partition("thread=")[2]
    await say(owner, "between us")
    await other.goto(f"/?thread={thread}")
    await expect(other.get_by_text("There is no such thread, or it is not for you.")).to_be_visible()

    await owner.get_by_role("button", name="Members").click()
    window = owner.get_by_role("dialog", name="Members")
    await window.get_by_role("textbox", name="Add somebody").fill("nobody")
    await window.get_by_role("button", name="Add", exact=True).click()
    await expect(window.get_by_role("alert")).to_have_text("There is nobody of that name.")
    await window.get_by_role("textbox", name="Add somebody").fill(bob)
    await window.get_by_role("button", name="Add", exact=True).click()
    await expect(window.get_by_role("button", name=f"Remove {bob}")).to_be_visible()

    await other.reload()
    await expect(rows(other, "between us", by=ann)).to_be_visible()
    await say(other, "with me too")
    await expect(rows(owner, "with me too", by=bob)).to_be_visible()
    listed = other.get_by_role("navigation").get_by_role("link", name=re.compile(f"^{thread}"))
    await expect(listed).to_be_visible()

    await window.get_by_label(f"Role: {bob}").focus()
    await owner.keyboard.press("ArrowDown")  # by a slip, or not
    await owner.keyboard.press("Tab")
    await expect(window.get_by_role("button", name=f"Save: {bob}: reader")).to_be_focused()
    await owner.keyboard.press("Enter")
    await expect(window.get_by_label(f"Role: {bob}")).to_be_focused()
    await expect(window.get_by_role("button", name=f"Save: {bob}")).to_be_hidden()
    await expect(window.get_by_role("status").filter(has_text="Saved")).to_be_visible()
    await other.reload()
    await expect(other.get_by_text("You may read here, and not speak.")).to_be_visible()
    await expect(composer(other)).to_be_hidden()


async def test_who_was_removed_is_told_so(asking_room: Room, visit: Visits) -> None:
    visit.allow(REFUSED)
    ann = await asking_room.person()
    thread = await asking_room.private_thread(**{ann: "member"})
    await asking_room.say(thread, "a secret")
    page = await signed_in(visit, asking_room, ann, thread)
    await expect(rows(page, "a secret").first).to_be_visible()
    await asking_room.ask("DELETE", f"threads/{thread}/members/{ann}")
    await expect(page.get_by_text("You may not read this thread any more.")).to_be_visible(timeout=45_000)
    await expect(rows(page)).to_have_count(0)
    await page.get_by_role("button", name="To the first thread").click()
    await live(page)

    await look_again(page)
    listed = page.get_by_role("navigation").get_by_role("link", name=re.compile(f"^{thread}"))
    await expect(listed).to_be_hidden()
    await page.go_back()
    await expect(page.get_by_text("There is no such thread, or it is not for you.")).to_be_visible()
    await asking_room.ask("PUT", f"threads/{thread}/members/{ann}", {"role": "reader"})
    await look_again(page)
    await expect(rows(page, "a secret").first).to_be_visible()


async def test_a_link_invites_whoever_has_an_account(asking_room: Room, visit: Visits) -> None:
    visit.allow(REFUSED)
    ann, bob = await asking_room.person(), await asking_room.person()
    thread = await asking_room.private_thread(**{ann: "owner"})
    owner = await signed_in(visit, asking_room, ann, thread)
    await owner.get_by_role("button", name="Members").click()
    window = owner.get_by_role("dialog", name="Members")
    await window.get_by_role("button", name="Make a link").click()
    link = await window.get_by_label("Invitation").input_value()
    assert link.startswith(f"{asking_room.address}/#invite=m3i_")

    guest = await visit(asking_room, path=link)
    await expect(guest.get_by_text("Sign in, and the invitation is taken up.")).to_be_visible()
    await sign_in(guest, bob, asking_room.passwords[bob])
    await expect(guest.get_by_text(f"You are in {thread} now.")).to_be_visible()
    await expect(guest).to_have_url(f"{asking_room.address}/?thread={thread}")
    await live(guest)
    await say(guest, "thank you")
    await expect(rows(guest, "thank you", by="You")).to_be_visible()

    await window.get_by_role("button", name="Take back").click()
    await window.get_by_role("button", name="Take back").click()
    await expect(window.get_by_role("button", name="Take back")).to_be_hidden()
    late = await signed_in(visit, asking_room, await asking_room.person())
    await late.goto(link)
    await expect(late.get_by_text("This invitation is not good any more.")).to_be_visible()
    await expect(late).to_have_url(f"{asking_room.address}/")


async def test_whoever_has_no_account_makes_one_with_the_link(asking_room: Room, visit: Visits) -> None:
    visit.allow(r"status of 4(09|22)")
    ann = await asking_room.person()
    thread = await asking_room.private_thread(**{ann: "owner"})
    invite = (await asking_room.ask("POST", f"threads/{thread}/invites", {}))["invite"]
    page = await visit(asking_room)
    await expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    await expect(page.get_by_role("button", name="I have no account yet")).to_be_hidden()
    await page.evaluate("invite => { location.hash = `invite=${invite}` }", invite)
    await page.get_by_label("Name").fill("my name")
    await page.get_by_role("button", name="I have no account yet").click()
    await expect(page.get_by_role("form", name="Make an account")).to_be_visible()
    await expect(page.get_by_label("Name")).to_be_focused()
    await expect(page.get_by_label("Name")).to_have_value("my name")
    await page.get_by_label("Password").fill("short")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_have_text("A password has 8 to 256 characters.")
    await page.get_by_label("Password").fill("a password of my own")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("Nobody can be called so.")
    await page.get_by_label("Name").fill(ann)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_have_text(re.compile("^Somebody has or had that name."))
    await page.get_by_label("Name").fill(f"friend-of-{ann}")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text(f"You are in {thread} now.")).to_be_visible()
    await expect(page).to_have_url(f"{asking_room.address}/?thread={thread}")
    await live(page)
    await say(page, "new here")
    await expect(rows(page, "new here", by="You")).to_be_visible()
    again = await visit(asking_room, thread)
    await expect(again.get_by_role("button", name="Sign in")).to_be_visible()
    await expect(again.get_by_role("button", name="I have no account yet")).to_be_hidden()
    await sign_in(again, f"friend-of-{ann}", "a password of my own")
    await expect(rows(again, "new here", by="You")).to_be_visible()


async def test_an_invitation_tells_its_tenant_where_there_are_several(
    start: Callable[..., Process], visit: Visits
) -> None:
    visit.allow(REFUSED)
    process = start("up", AUTH="required", TENANTS="acme,globex")
    async with Room.at(await address_of(process)) as room:
        await room.sign_in("admin", process.one_time_password(), "correct horse")
        invited = await visit(room)
        await expect(invited.get_by_label("Room")).to_be_focused()
        await invited.get_by_label("Room").fill("globex")
        adding = start("user add bob --tenant globex", TENANTS="acme,globex")
        assert adding.wait() == 0, adding.said
        await sign_in(invited, "bob", adding.one_time_password())
        await invited.get_by_label("New password").fill("a password of my own")
        await invited.keyboard.press("Enter")
        await live(invited)

        room.passwords["admin"] = "correct horse"
        owner = await signed_in(visit, room, "admin", await room.private_thread())
        await owner.get_by_role("button", name="Members").click()
        await owner.get_by_role("button", name="Make a link").click()
        await invited.goto(await owner.get_by_label("Invitation").input_value())
        told = invited.get_by_role("status").filter(has_text="This invitation is to acme. Sign out here, and in there.")
        await expect(told).to_be_visible()
        await invited.get_by_role("button", name="Preferences").click()
        await invited.get_by_role("button", name="Sign out").click()
        await expect(invited.get_by_label("Room")).to_have_value("acme")
        await sign_in(invited, "admin", "correct horse")
        await expect(invited.get_by_text(re.compile(r"^You are in .* now\.$"))).to_be_visible()


async def test_the_keyboard_stays_where_one_works(asking_room: Room, visit: Visits) -> None:
    """Also where what was pressed is under way, or goes away with its row. A key that is held presses once."""
    ann, bob, carl = [await asking_room.person() for _ in range(3)]
    thread = await asking_room.private_thread(**{ann: "owner", bob: "member", carl: "reader"})
    page = await signed_in(visit, asking_room, ann, thread)
    await page.get_by_role("button", name="Members").click()
    window = page.get_by_role("dialog", name="Members")
    await window.get_by_role("button", name=f"Remove {bob}").focus()
    for gone, then in ((bob, f"Remove {carl}"), (carl, "Remove admin"), ("admin", "Add")):
        await page.keyboard.press("Enter")
        await page.keyboard.press("Enter")
        await expect(window.get_by_role("button", name=f"Remove {gone}")).to_be_hidden()
        await expect(window.get_by_role("button", name=then, exact=True)).to_be_focused()

    make = window.get_by_role("button", name="Make a link")
    await make.focus()
    for count in (1, 2):
        await page.keyboard.press("Enter")
        await expect(window.get_by_role("button", name="Take back")).to_have_count(count)
        await expect(make).to_be_focused()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method))
    take_back = window.get_by_role("button", name="Take back")
    await take_back.last.focus()
    for left in (1, 0):
        await page.keyboard.press("Enter")  # at which it asks
        await hold(page, "Enter")
        await expect(take_back).to_have_count(left)
        await expect(take_back if left else make).to_be_focused()
        await page.keyboard.down("Enter")
        await page.keyboard.up("Enter")
    async with page.expect_request("**/api/threads?*"):
        await look_again(page)  # which is asked later than anything else was
    assert [method for method in asked if method != "GET"] == ["DELETE", "DELETE"]
    await window.get_by_label("Good for").focus()
    await hold(page, "Tab", times=2)  # of which the second is one that is held over the button
    await page.keyboard.up("Tab")
    await expect(window.get_by_role("button", name="Leave the thread")).to_be_focused()


async def test_two_pages_share_one_sign_in_when_its_token_ends(start: Callable[..., Process], visit: Visits) -> None:
    """A refresh token is good once: whoever used one a second time would be signed out."""
    process = start("up", AUTH="required", ACCESS_TOKEN_TTL="30")  # which the page renews some seconds later
    async with Room.at(await address_of(process)) as room:
        await room.sign_in("admin", process.one_time_password(), "correct horse")
        page = await visit(room)
        await sign_in(page, "admin", "correct horse")
        await live(page)
        another = await page.context.new_page()
        await another.goto("/")
        await live(another)
        renewed: list[Response] = []
        opened: list[WebSocket] = []
        page.context.on("response", lambda answer: renewed.append(answer) if "refresh" in answer.url else None)
        page.on("websocket", lambda socket: opened.append(socket))  # noqa: PLW0108  # Playwright marks what it calls
        number = 0
        while len(renewed) < 2:
            number += 1
            for place, each in enumerate((page, another)):
                await look_again(each)  # for which it needs a good token
                await say(each, f"{number} on page {place}")
            for place in (0, 1):
                await expect(rows(page, f"{number} on page {place}", by="You")).to_be_visible()
        assert {answer.status for answer in renewed} == {200}
        assert opened == [], "the thread stays open meanwhile"
        await page.reload()
        await live(page)
        await live(another)


async def signed_in(visit: Visits, room: Room, name: str, thread: str | None = None) -> Page:
    page = await visit(room, thread)
    await sign_in(page, name, room.passwords[name])
    await live(page)
    return page
