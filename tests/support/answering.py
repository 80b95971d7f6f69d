"""Agents beside a recorder and a process that accepts messages, and what they say to each other."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

from pydantic import SecretStr

from m3.bus import Bus
from m3.door import Door, Watch
from m3.events import Incoming, Lane, Message, MessageAccepted
from m3.sealing import Masters
from m3.settings import Settings
from m3.store import Store, open_store
from services.agent import agent, open_model
from services.agent.model import Model
from services.recorder import recorder
from tests.support.scripted_model import Behaviour, ScriptedModel, prompt, says
from tests.support.until import DEADLINE

KEY = "sk-kept-to-ourselves"
PROMPT = "You are the agent of a test."

#: Runs agents on a bus with a model's server, inside a block.
Agents = Callable[..., AbstractAsyncContextManager[None]]


class Visitor:
    """Says things as a process that accepts messages does, and hears what becomes of them."""

    def __init__(self, door: Door, watches: AsyncExitStack) -> None:
        self._door = door
        self._stack = watches
        self._watches: dict[UUID, Watch] = {}

    async def say(self, text: str, thread_id: str = "thread", source: Lane = "user") -> UUID:
        """Have a message recorded; returns its id."""
        said = accepted(text, thread_id, source, origin=self._door.origin)
        watch = self._watches[said.message_id] = self._stack.enter_context(self._door.watch(said.message_id))
        await self._door.hand_in(said)
        await watch.recorded(DEADLINE)
        return said.message_id

    async def hand_in(self, *events: Incoming) -> None:
        """Ask for something else to be recorded."""
        for event in events:
            await self._door.hand_in(event)

    async def outcome(self, message_id: UUID) -> Message:
        return await self._watches[message_id].settled(DEADLINE)

    async def ask(self, text: str, thread_id: str = "thread", source: Lane = "user") -> Message:
        """Say it and wait for its fate."""
        return await self.outcome(await self.say(text, thread_id, source))


@asynccontextmanager
async def visited(bus: Bus, store: Store) -> AsyncIterator[Visitor]:
    """A room with a recorder, in which nobody answers yet."""
    async with (
        recorder(bus, store, grace=DEADLINE),
        Door.open("gateway", bus, store) as door,
        AsyncExitStack() as watches,
    ):
        yield Visitor(door, watches)


@asynccontextmanager
async def running_agents(
    database_url: str, bus: Bus, model: ScriptedModel, *, count: int = 1, grace: float = DEADLINE, **changed: Any
) -> AsyncIterator[None]:
    settings = Settings.model_validate(
        {"system_prompt": PROMPT, "sweep_interval": 3600, "turn_timeout": DEADLINE} | changed
    )
    async with AsyncExitStack() as stack:
        for _ in range(count):
            store = await stack.enter_async_context(open_store(database_url, pool_size=3, masters=Masters.of(settings)))
            client = await stack.enter_async_context(client_of(model.url, settings.turn_timeout, settings.llm_attempts))
            await stack.enter_async_context(agent(bus, store, client, settings, grace=grace))
        yield


async def work(agent: AbstractAsyncContextManager[None], over: asyncio.Event) -> None:
    """Have the agent work until it is told to stop."""
    async with agent:
        await over.wait()


def client_of(url: str, turn_timeout: float = DEADLINE, attempts: int = 1) -> AbstractAsyncContextManager[Model]:
    return open_model(url, name="scripted", api_key=SecretStr(KEY), turn_timeout=turn_timeout, attempts=attempts)


def accepted(text: str, thread_id: str = "thread", source: Lane = "user", origin: str = "nobody") -> MessageAccepted:
    return MessageAccepted(thread_id=thread_id, source=source, content=text, interface="http_api", origin=origin)


def repeats(body: dict[str, Any]) -> Behaviour:
    """The script of a model that says what it heard."""
    return says(f"heard {prompt(body)}")


async def spoken(store: Store, thread_id: str = "thread") -> list[str]:
    """What was said in the thread, in the order of its numbers."""
    return [message.content for message in await store.latest(thread_id, 1000)]
