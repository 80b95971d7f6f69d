"""A real Chromium, and rooms that the tests of the page share, each in threads of its own."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.browsing import Answers, Room, Visits, address_of, new_thread
from tests.support.chromium import NoChromiumError, chromium
from tests.support.packages import Say
from tests.support.processes import Process, processes, reachable
from tests.support.scripted_model import ScriptedModel, scripted_model

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "services/gateway/page/index.html"
AXE = ROOT / "web/node_modules/axe-core/axe.min.js"
OPERATORS_PASSWORD = "correct horse"


def without(what: str) -> NoReturn:
    """A test cannot be run, which is no matter at home only."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must test the page in a browser: {what}")
    pytest.skip(f"NOT TESTED IN A BROWSER: {what}")


@pytest.fixture(scope="session")
def built_page() -> None:
    if not PAGE.exists():
        without("the page was not built; `make page` does it, and `make test` too")


@pytest.fixture(scope="session")
def axe() -> str:
    """What looks for faults of accessibility, as a script."""
    if not AXE.exists():
        without("axe-core is not there; `make test` fetches it")
    return AXE.read_text("utf-8")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(built_page: None, say: Say) -> AsyncIterator[Browser]:
    try:
        async with chromium(say) as browser:
            yield browser
    except NoChromiumError as error:
        without(f"no Chromium: {error}")


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser) -> AsyncIterator[Visits]:
    """Opens pages. Whatever they report as an error, or ask of another host, fails the test."""
    visits = Visits(browser)
    yield visits
    await visits.close()
    assert visits.faults() == []


@pytest.fixture
def thread() -> str:
    return new_thread()


@pytest.fixture(scope="session")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Process]]:
    with processes() as started:
        yield started


@pytest.fixture(scope="session")
def answers() -> Answers:
    """What the model of the open room answers."""
    return Answers()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def model(answers: Answers) -> AsyncIterator[ScriptedModel]:
    async with scripted_model(answers) as model:
        yield model


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def open_room(
    rooms: list[Process], model: ScriptedModel, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Room]:
    """A room that asks nobody, with a scripted model."""
    data = reachable(tmp_path_factory.mktemp("open")) / "data"
    room = Process("up", {"DATA_DIR": str(data), "LLM_BASE_URL": model.url, "LLM_ATTEMPTS": "1"})
    rooms.append(room)
    async with Room.at(await address_of(room)) as at:
        yield at


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def asking_room(rooms: list[Process], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Room]:
    """A room where people sign in, with the demo model."""
    data = reachable(tmp_path_factory.mktemp("asking")) / "data"
    room = Process("up", {"DATA_DIR": str(data), "AUTH": "required", "SIGN_UP": "true"})
    rooms.append(room)
    async with Room.at(await address_of(room)) as at:
        at.passwords["admin"] = OPERATORS_PASSWORD
        await at.sign_in("admin", room.one_time_password(), OPERATORS_PASSWORD)
        yield at
