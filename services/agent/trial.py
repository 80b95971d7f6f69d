"""A look at a model from outside the room: what its server has, and whether it says a word."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from m3.errors import Obstacle, Unreached
from services.agent.failures import KeyRefused, ModelFailed, NotFound
from services.agent.model import Model
from services.agent.spoken import Spoken

#: Asks for little, since only the first of it is heard.
QUESTION = [{"role": "user", "content": "Say hello."}]

T = TypeVar("T")


async def known_models(model: Model) -> list[str] | None:
    """The names that its server tells, or None where it tells none. Raises Unreached."""
    return await _looking(model.known())


async def first_text(model: Model) -> float:
    """Seconds from a question until the first of the answer, the rest of which is not heard. Raises Unreached."""
    return await _looking(_first_text(model))


async def _first_text(model: Model) -> float:
    now = asyncio.get_running_loop().time
    begun = now()
    said = asyncio.Event()
    hearing = asyncio.create_task(said.wait(), name="first text of a model")
    replying = asyncio.create_task(model.reply(QUESTION, Spoken(said.set)), name="reply of a model")
    try:
        await asyncio.wait({hearing, replying}, return_when=asyncio.FIRST_COMPLETED)
        if not said.is_set():
            replying.result()  # which it ended without
        return now() - begun
    finally:
        for task in (hearing, replying):
            task.cancel()
        await asyncio.gather(hearing, replying, return_exceptions=True)


async def _looking(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except ModelFailed as failure:
        raise Unreached(str(failure), _obstacle(failure)) from failure


def _obstacle(failure: ModelFailed) -> Obstacle:
    match failure:
        case KeyRefused():
            return "key"
        case NotFound():
            return "place"
        case ModelFailed(kind="timeout"):
            return "silent"
        case ModelFailed(kind="connection" | "cut"):
            return "away"
        case ModelFailed(kind="rate_limit"):
            return "busy"
        case _:
            return "other"
