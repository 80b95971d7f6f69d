"""What others say, and other pages, cannot do at the page."""

import re

import pytest
from playwright.async_api import Page, Route, expect

from tests.support.browsing import Room, Visits, in_a_browser, live, rows, say, site

pytestmark = in_a_browser

ELSEWHERE = "http://127.0.0.1:9"  # where nobody listens; who asked for it would be noticed

#: Each would set `hacked`, or fetch something, if it were more than text.
ATTACKS = [
    "<script>window.hacked = 1</script>",
    f"<script src={ELSEWHERE}/a.js></script>",
    "<img src=x onerror=window.hacked=1>",
    "<svg onload=window.hacked=1><animate onbegin=window.hacked=1 attributeName=x></svg>",
    "<svg><style><img src=x onerror=window.hacked=1></style></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.hacked=1>",
    "<details open ontoggle=window.hacked=1><summary>x</summary></details>",
    f"<iframe srcdoc='<script>parent.hacked=1</script>' src={ELSEWHERE}></iframe>",
    "<a href='javascript:window.hacked=1'>click me</a>",
    "[click me](javascript:window.hacked=1)",
    "[click me](JaVaScRiPt:window.hacked=1)",
    "[click me](java\nscript:window.hacked=1)",
    "[click me](&#106;avascript:window.hacked=1)",
    "[click me](data:text/html,<script>opener.hacked=1</script>)",
    "[click me](vbscript:window.hacked=1)",
    "<javascript:window.hacked=1>",
    f'[click me]({ELSEWHERE} "\\" onmouseover=window.hacked=1 x=\\"")',
    f'![x]({ELSEWHERE}/a.png"onerror="window.hacked=1)',
    f"![a picture]({ELSEWHERE}/a.png)",
    f"<img src={ELSEWHERE}/b.png>",
    f"<link rel=stylesheet href={ELSEWHERE}/a.css><style>@import '{ELSEWHERE}/b.css'</style>",
    f"<video src={ELSEWHERE}/a.mp4 autoplay onerror=window.hacked=1></video>",
    f"<form action={ELSEWHERE}><input name=x autofocus onfocus=window.hacked=1></form>",
    f"<meta http-equiv=refresh content='0;url={ELSEWHERE}'><base href={ELSEWHERE}>",
    "```<img src=x onerror=window.hacked=1>\n</code></pre><img src=x onerror=window.hacked=1>\n```",
    "`<img src=x onerror=window.hacked=1>`",
    "| <img src=x onerror=window.hacked=1> |\n|---|\n| <script>window.hacked=1</script> |",
    '<div id="room" name="cookie"></div><a id=location name=location>x</a>',
    "<x-y style='position:fixed;inset:0' onclick=window.hacked=1>x</x-y>",
    "\u202egnp.exe <img src=x onerror=window.hacked=1>",
]
#: All that may be made of what somebody says.
ELEMENTS = set(
    "p br hr strong em del code pre blockquote ul ol li h3 h4 h5 h6 a table thead tbody tr th td div span".split()  # noqa: SIM905  # read as in markdown.ts
) | {"button", "input"}


@pytest.mark.parametrize("lane", ["people", "programs", "the agent"])
async def test_what_is_said_is_never_run_and_fetches_nothing(
    open_room: Room, visit: Visits, thread: str, lane: str
) -> None:
    page = await visit(open_room, thread)
    await live(page)
    if lane != "the agent":  # who says what it heard
        await open_room.settle(thread, api_policy="ignore", user_policy="ignore")
    if lane == "programs":
        await open_room.feed(thread, ATTACKS, program="<img src=x onerror=window.hacked=1>")
    else:
        for attack in ATTACKS:
            await open_room.say(thread, attack, name="<img src=x onerror=window.hacked=1>")
    await open_room.say(thread, "the last")
    if lane == "the agent":
        said = rows(page, re.compile(r"heard.*the last", re.DOTALL), by="Agent").last
        await expect(said).not_to_have_attribute("aria-busy", "true")
    await expect(rows(page, "the last").last).to_be_in_viewport()
    await page.reload()
    await expect(rows(page, "the last").last).to_be_in_viewport()
    while not await page.get_by_text("The beginning of this thread").is_visible():
        await is_harmless(page)
        await page.get_by_role("feed").hover()
        await page.mouse.wheel(0, -400)
    await is_harmless(page)


async def is_harmless(page: Page) -> None:
    made, links, handlers, hacked = await page.evaluate(
        """() => {
            const made = [...document.querySelectorAll('[role=feed] .content *')];
            return [
                made.map(element => element.localName),
                made.map(element => element.href).filter(Boolean),
                made.flatMap(element => element.getAttributeNames()).filter(name => /^(on|src|style|id|name)/.test(name)),
                window.hacked ?? null,
            ];
        }"""
    )
    assert set(made) <= ELEMENTS
    assert [link for link in links if not re.match("https?:|mailto:", link)] == []
    assert handlers == []
    assert hacked is None


async def test_a_name_is_only_text(open_room: Room, visit: Visits, thread: str) -> None:
    name = "<img src onerror=hacked=1>"
    ann, other = await visit(open_room, thread), await visit(open_room, thread, name=name)
    await say(other, "who am I?")
    await expect(rows(ann, "who am I?", by=re.escape(name))).to_be_visible()
    assert await ann.evaluate("window.hacked ?? null") is None


async def test_links_lead_away_without_telling_from_where(open_room: Room, visit: Visits, thread: str) -> None:
    await open_room.settle(thread, user_policy="ignore")
    page = await visit(open_room, thread)
    await say(page, "see https://example.com/a and [mail](mailto:a@example.com)")
    for link in (page.get_by_role("link", name="https://example.com/a"), page.get_by_role("link", name="mail")):
        await expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
        await expect(link).to_have_attribute("target", "_blank")


async def test_a_picture_is_a_link_until_somebody_wants_to_see_it(open_room: Room, visit: Visits, thread: str) -> None:
    await open_room.settle(thread, user_policy="ignore")
    page = await visit(open_room, thread)
    await say(page, f"![our cat]({ELSEWHERE}/cat.png)")
    await expect(page.get_by_role("link", name="Picture: our cat 127.0.0.1:9")).to_have_attribute(
        "href", f"{ELSEWHERE}/cat.png"
    )
    await expect(page.get_by_role("feed").get_by_role("img")).to_have_count(0)


async def test_the_page_runs_nothing_that_was_put_into_it(open_room: Room, visit: Visits) -> None:
    visit.allow("Content Security Policy|TrustedHTML")
    # which a page needs that the test hands on
    page = await visit(open_room, permissions=["local-network-access"])
    await live(page)

    async def add_a_script(route: Route) -> None:
        answer = await route.fetch()
        body = (await answer.text()).replace("<head>", "<head><script>window.hacked = 1</script>")
        await route.fulfill(response=answer, body=body)

    await page.route(f"{open_room.address}/", add_a_script)
    await page.reload()
    await live(page)
    assert await page.evaluate("window.hacked ?? null") is None
    refused = await page.evaluate(
        """() => {
            try {
                document.body.insertAdjacentHTML("beforeend", "<img src=x onerror=window.hacked=1>");
            } catch (error) {
                return error.name;
            }
        }"""
    )
    assert refused == "TypeError", "for it is no trusted type"


async def test_a_page_of_another_port_opens_no_socket_and_says_nothing(
    open_room: Room, visit: Visits, thread: str
) -> None:
    async with site("<title>another</title>") as another:
        visit.allow(f"{another}|favicon|WebSocket connection to|CORS policy|net::ERR_FAILED|status of 403")
        page = await visit(open_room, path=another)
        socket = open_room.address.replace("http", "ws", 1) + f"/ws/chat/{thread}"
        opened = await page.evaluate(
            """address => new Promise(resolve => {
                const socket = new WebSocket(address);
                socket.onopen = () => resolve(true);
                socket.onclose = () => resolve(false);
            })""",
            socket,
        )
        assert opened is False
        for kind in ("application/json", "text/plain"):
            answered = await page.evaluate(
                """([address, kind, body]) =>
                    fetch(address, {method: "POST", headers: {"Content-Type": kind}, body}).then(() => true, () => false)""",
                [f"{open_room.address}/api/chat", kind, f'{{"message": "from another page", "thread_id": "{thread}"}}'],
            )
            assert answered is False
    assert await open_room.contents(thread) == []
