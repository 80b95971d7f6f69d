"""The page in a real Chromium, and the rooms that it is of."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Request, WebSocket, expect

from tests.support.scripted_model import Behaviour, Script, in_turn, prompt, says
from tests.support.town import bearer_header
from tests.support.until import DEADLINE

#: The browser belongs to one event loop, which all tests of the page share.
in_a_browser = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(90)]

#: What the browser itself says while the room is away.
AWAY = r"net::ERR_|WebSocket connection to"
#: What the browser says of a page that leaves a thread while its socket still opens, as somebody who clicks fast does.
#: The page closes such a socket at once on purpose: a browser opens one socket of an address after the other, so that
#: one which hangs would keep the next thread waiting.
LEFT_WHILE_OPENING = r"WebSocket is closed before the connection is established"

_numbers = count(1)

expect.set_options(timeout=DEADLINE * 1000)


def new_thread() -> str:
    return f"thread-{next(_numbers)}"


class Answers:
    """What a scripted model answers, by a part of what it is asked; to anything else it says what it heard."""

    def __init__(self) -> None:
        self._by_part: dict[str, Script] = {}

    def to(self, part: str, *behaviours: Behaviour) -> None:
        """One after the other, and the last one from then on."""
        self._by_part[part] = in_turn(*behaviours)

    def __call__(self, body: dict[str, Any]) -> Behaviour:
        asked = prompt(body)
        script = next((script for part, script in self._by_part.items() if part in asked), None)
        return script(body) if script else says(f"heard {asked}")


@dataclass(frozen=True)
class Room:
    """A room that runs, and what its operator, or where nobody is asked anybody, does there without a page."""

    address: str
    http: httpx2.AsyncClient
    #: Of who has an account.
    passwords: dict[str, str] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def at(cls, address: str) -> AsyncIterator["Room"]:
        async with httpx2.AsyncClient(base_url=address, timeout=DEADLINE) as http:
            yield cls(address, http)

    async def ask(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:
        answer = await self.http.request(method, f"/api/{path}", json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def say(self, thread: str, message: str, name: str = "Somebody else") -> dict[str, Any]:
        headers = {"M3-Client": name, "Prefer": "respond-async"}
        said: dict[str, Any] = await self.ask("POST", "chat", {"message": message, "thread_id": thread}, headers)
        return said

    async def feed(self, thread: str, messages: Iterable[str], program: str = "feed") -> list[dict[str, Any]]:
        """Say it as a program."""
        body = [{"message": message} for message in messages]
        fed = await self.ask("POST", f"threads/{thread}/messages", body, {"M3-Client": program})
        said: list[dict[str, Any]] = fed["messages"]
        return said

    async def settle(self, thread: str, **settings: object) -> None:
        await self.ask("PUT", f"threads/{thread}/settings", settings)

    async def history(self, thread: str) -> list[dict[str, Any]]:
        """The newest 500."""
        messages: list[dict[str, Any]] = (await self.ask("GET", f"threads/{thread}/history?limit=500"))["messages"]
        return messages

    async def contents(self, thread: str) -> list[str]:
        return [message["content"] for message in await self.history(thread)]

    async def sign_in(self, name: str, password: str, new_password: str | None = None) -> None:
        """Be this person from now on."""
        body = {"name": name, "password": password} | ({"new_password": new_password} if new_password else {})
        signed_in = await self.ask("POST", "login", body)
        self.http.headers.update(bearer_header(signed_in["access_token"]))

    async def person(self) -> str:
        """A new account with a password of its own; returns its name, which is listed behind those of before."""
        name = f"person-{next(_numbers):04}"
        one_time = (await self.ask("POST", "users", {"name": name}))["password"]
        self.passwords[name] = f"the password of {name}"
        await self.ask("POST", "login", {"name": name, "password": one_time, "new_password": self.passwords[name]})
        return name

    async def private_thread(self, **roles: str) -> str:
        """A new one of the operator's, with these members."""
        thread = new_thread()
        await self.ask("POST", "threads", {"thread_id": thread})
        for name, role in roles.items():
            await self.ask("PUT", f"threads/{thread}/members/{name}", {"role": role})
        return thread


class Visits:
    """Opens pages, and keeps what went wrong in any of them, and what they asked of anybody else than their room."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._hosts: set[str] = set()
        self._faults: list[str] = []
        self._allowed = [LEFT_WHILE_OPENING]

    async def __call__(
        self, room: Room, thread: str | None = None, name: str = "Ann", path: str = "", **context: Any
    ) -> Page:
        """A page of a browser of its own, in which somebody calls themselves so. ``context`` as of Playwright."""
        path = path or ("/" if thread is None else f"/?thread={thread}")
        kept = {"origins": [{"origin": room.address, "localStorage": [{"name": "m3.name", "value": f'"{name}"'}]}]}
        opened = await self._browser.new_context(
            **{"locale": "en-US", "reduced_motion": "reduce", "base_url": room.address, "storage_state": kept} | context
        )
        self._contexts.append(opened)
        self._hosts.add(urlsplit(room.address).netloc)
        opened.set_default_timeout(DEADLINE * 1000)
        opened.on("console", self._console)
        opened.on("weberror", lambda error: self._faults.append(f"{error.error}"))
        opened.on("request", self._request)
        opened.on("page", lambda page: page.on("websocket", self._websocket))
        page = await opened.new_page()
        await page.goto(path)
        return page

    def allow(self, pattern: str) -> None:
        """Take what matches for no fault: the test means to provoke it."""
        self._allowed.append(pattern)

    def faults(self) -> list[str]:
        return [fault for fault in self._faults if not any(re.search(pattern, fault) for pattern in self._allowed)]

    async def close(self) -> None:
        for context in self._contexts:
            await context.close()

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._faults.append(f"console: {message.text} {message.location.get('url', '')}")

    def _request(self, request: Request) -> None:
        self._asked(request.url)

    def _websocket(self, websocket: WebSocket) -> None:
        self._asked(websocket.url)

    def _asked(self, url: str) -> None:
        address = urlsplit(url)
        if address.scheme not in {"data", "blob"} and address.netloc not in self._hosts:
            self._faults.append(f"asked another host: {url}")


def composer(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Message", exact=True)


def rows(page: Page, text: str | re.Pattern[str] | None = None, by: str = "") -> Locator:
    """The messages that the page has drawn, or those with the text, or by somebody."""
    return page.get_by_role("feed").get_by_role("article", name=re.compile(f"^{by}")).filter(has_text=text)


async def live(page: Page) -> None:
    """Wait until the page hears its thread."""
    await expect(page.get_by_role("status").filter(has_text=re.compile("^Live$"))).to_be_visible()


async def say(page: Page, message: str) -> None:
    await composer(page).fill(message)
    await composer(page).press("Enter")


async def hold(page: Page, key: str, times: int = 4) -> None:
    """Press it, and repeat it until it is let go of."""
    for _ in range(times):
        await page.keyboard.down(key)


async def look_again(page: Page) -> None:
    """Have the page look at its threads as one does that is seen again; else it does so every few seconds."""
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


async def sign_in(page: Page, name: str, password: str) -> None:
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password", exact=True).fill(password)
    await page.get_by_role("button", name="Sign in").click()


async def address_of(process: Any) -> str:
    """Wait for it beside the event loop, in which a model may be asked."""
    address: str = await asyncio.to_thread(process.address)
    return address


@asynccontextmanager
async def site(content: str) -> AsyncIterator[str]:
    """A web site of one page, at another port of this machine."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = content.encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, family=socket.AF_INET)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()
