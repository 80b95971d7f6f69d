"""The model of the load: what it replies is a function of what it is told, so that every reply can be checked."""

import asyncio
import random
from enum import Enum, auto
from typing import Any

from tests.faults.checker import REPLY
from tests.support.scripted_model import (
    Behaviour,
    ScriptedModel,
    answers,
    breaks_off,
    keeps_silent,
    prompt,
    says,
)

#: A message with this in it gets no reply.
FAILING = "the model fails"
#: A message with this in it is replied to at once.
AT_ONCE = "at once"
#: Seconds that a reply takes at most.
SLOWEST = 0.15


class Mood(Enum):
    WELL = auto()
    SILENT = auto()
    FAILING = auto()
    BREAKING_OFF = auto()


class Model:
    def __init__(self, slowest: float = SLOWEST) -> None:
        self.slowest = slowest
        self.mood = Mood.WELL
        self.asked = 0
        self.server: ScriptedModel | None = None

    def script(self, body: dict[str, Any]) -> Behaviour:
        self.asked += 1
        if self.server is not None:
            self.server.asked.clear()  # it would keep every conversation of the whole run
        if self.mood == Mood.SILENT:
            return keeps_silent()
        if self.mood == Mood.BREAKING_OFF:
            return breaks_off()
        content = prompt(body).partition("] ")[2]
        if self.mood == Mood.FAILING or FAILING in content:
            return answers("{}", 500)
        seconds = 0.0 if AT_ONCE in content else random.Random(content).uniform(0, self.slowest)
        return _later(seconds, says(REPLY + content))


def _later(seconds: float, then: Behaviour) -> Behaviour:
    async def behave(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        await then(writer)

    return behave
