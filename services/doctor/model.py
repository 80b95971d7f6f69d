"""The model: whether its server can be had, knows the model, and says a word."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from m3.errors import Obstacle, StartError, Unreached
from services.doctor.findings import Finding, shown, unreached

#: Seconds in which a server must tell its models.
LIST_TIMEOUT = 5.0
#: Seconds in which a model must say its first word.
WORD_TIMEOUT = 15.0
#: Names of other models that are told.
FEW = 5

_ADVICE: Mapping[Obstacle, str] = {
    "silent": "Look whether the model is loaded and its server not overrun; TURN_TIMEOUT is what a turn gives it.",
    "away": "Start the model's server, or correct LLM_BASE_URL; in a container localhost is that container.",
    "key": "Set LLM_API_KEY to a key of that server.",
    "place": "Correct LLM_MODEL, or LLM_BASE_URL, which mostly ends in /v1.",
    "busy": "Wait, or have the server allow more.",
}
_OTHERWISE = "Look into the log of the model's server, and whether LLM_BASE_URL is an OpenAI-compatible one."


@dataclass(frozen=True, slots=True)
class Questions:
    """To ask a model. Both raise Unreached."""

    known: Callable[[], Awaitable[list[str] | None]]
    """The names of the models that its server has, or None where it does not tell."""
    first_text: Callable[[], Awaitable[float]]
    """Seconds until the first text of an answer."""


async def model(
    base_url: str | None, name: str, questions: Callable[[], AbstractAsyncContextManager[Questions]]
) -> list[Finding]:
    if base_url is None:
        found = "the built-in demo model answers (LLM_BASE_URL is unset here)"
        return [Finding("model", "warning", found, "Set LLM_BASE_URL and LLM_MODEL for a real one.")]
    where = shown(base_url)
    try:
        async with questions() as asked:
            try:
                known = await _known(asked)
            except Unreached as error:
                first = unreached("model", where, error, _ADVICE.get(error.obstacle, _OTHERWISE))
                if error.obstacle == "away":
                    return [first, Finding("reply", "skipped", "the model's server was not reached")]
            else:
                first = listed(known, where, name)
            return [first, await _word(asked, name)]
    except StartError as error:
        return [Finding("model", "wrong", str(error).removesuffix("."), "Correct it.")]


async def _known(asked: Questions) -> list[str] | None:
    try:
        async with asyncio.timeout(LIST_TIMEOUT):
            return await asked.known()
    except TimeoutError as error:
        raise Unreached.because_of(error) from error


def listed(names: list[str] | None, where: str, name: str) -> Finding:
    if names is None:
        return Finding("model", "ok", f"{where} does not list its models")
    if name in names:
        return Finding("model", "ok", f"{name} is at {where}")
    others = ", ".join(names[:FEW]) + (", …" if len(names) > FEW else "")
    found = f"{where} does not list {name}" + (f", but {others}" if names else ", nor any other")
    return Finding("model", "warning", found, "Set LLM_MODEL to one that it has.")


async def _word(asked: Questions, name: str) -> Finding:
    try:
        async with asyncio.timeout(WORD_TIMEOUT):
            took = await asked.first_text()
    except TimeoutError:
        return Finding("reply", "wrong", f"{name} said nothing within {WORD_TIMEOUT:g} s", _ADVICE["silent"])
    except Unreached as error:
        return unreached("reply", name, error, _ADVICE.get(error.obstacle, _OTHERWISE))
    return Finding("reply", "ok", f"{name} said its first word after {took:.2f} s")
