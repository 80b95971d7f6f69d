"""What is told of a turn while the model breaks off, begins anew and ends at any moment."""

import asyncio
from collections.abc import Callable
from typing import cast
from uuid import UUID

from m3 import topology
from m3.bus.memory import MemoryBus
from m3.events import ReplyGrew, TurnStarted, decode
from m3.sealing import Content
from m3.tasks import background
from m3.topology import Route
from services.agent.telling import Telling
from tests.support.until import until


class Unsealed:
    async def sealed(self, news: object) -> object:
        return news


class Bus(MemoryBus):
    """Shows what a client shows of the reply. ``meanwhile`` happens while the turn is told to somebody who asked."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = self.retold = ""
        self.meanwhile: Callable[[], None] | None = None

    async def publish(self, route: Route, body: bytes) -> None:
        if not route.exchange and self.meanwhile:
            self.meanwhile()
        for news in decode(body):
            if not route.exchange:
                self.retold += news.text if isinstance(news, ReplyGrew) else ""
            elif isinstance(news, TurnStarted):
                self.shown = ""
            elif isinstance(news, ReplyGrew):
                self.shown += news.text


def telling_on(bus: Bus) -> Telling:
    content = cast("Content", Unsealed())
    return Telling(bus, content, "t", turn_id=UUID(int=1), reply_id=UUID(int=2), in_reply_to=(UUID(int=3),))


async def test_a_model_that_begins_anew_while_the_turn_is_told_again_loses_nothing() -> None:
    bus = Bus()
    telling = telling_on(bus)

    def break_off() -> None:
        telling.spoken.restart()
        telling.spoken.add("The new answer ")

    async with background("telling", telling.run(), stop=telling.finish, grace=1):
        telling.spoken.add("The old one")
        await until(lambda: bus.shown == "The old one")
        bus.meanwhile = break_off
        telling.retell(topology.retold("somebody"))
        await until(lambda: bus.shown == "The new answer ")
        telling.spoken.add("goes on.")
    assert bus.retold == "The old one"
    assert bus.shown == telling.spoken.text == "The new answer goes on."


async def test_a_turn_that_begins_anew_and_is_done_at_once_is_told_at_once() -> None:
    bus = Bus()
    telling = telling_on(bus)
    running = asyncio.create_task(telling.run(), name="telling")
    telling.spoken.add("The old one")
    await until(lambda: bus.shown == "The old one")
    telling.spoken.restart()
    telling.spoken.add("The new one")
    telling.finish()
    await asyncio.wait_for(running, 10)
    assert bus.shown == "The new one"
