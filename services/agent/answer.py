"""What the model's server answers, which may be anything: the reply in it, and the count of its tokens."""

import asyncio
import json
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass

import httpx2

from services.agent.failures import ModelFailed, TooLarge, broken_off, not_understood, reported
from services.agent.spoken import Spoken

#: More tokens than this are no count of tokens.
MOST_TOKENS = 2**31 - 1
#: Seconds in which a server may tell its count of tokens, when the reply itself is whole.
AFTERWORD = 1.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the server counts them."""

    prompt_tokens: int
    completion_tokens: int


class Answer:
    """One answer, as it comes in."""

    def __init__(self, spoken: Spoken) -> None:
        self.usage: Usage | None = None
        self._spoken = spoken
        self._finished = False
        #: Whether it says something that is no text: it calls a tool, or sends a picture.
        self._wordless = False

    async def listen(self, response: httpx2.Response, chunks: AsyncIterable[object]) -> None:
        """``chunks``: the events of the response, where it is a stream."""
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type.endswith("json"):  # from servers that do not stream
            self._take_completion(json.loads(await response.aread()))
        elif "html" in media_type:
            raise not_understood(f"it is {media_type}")
        else:
            await self._take_chunks(chunks)

    async def _take_chunks(self, chunks: AsyncIterable[object]) -> None:
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(None) as patience:
                async for chunk in chunks:
                    self._take_chunk(chunk)
                    if self._spoken.full:
                        return
                    if self._finished and patience.when() is None:
                        patience.reschedule(now() + AFTERWORD)
        except Exception as error:
            # A reply that is whole is not lost with what should have come after it. One that is too long is cut.
            if not self._finished and not (isinstance(error, TooLarge) and self._spoken.text):
                raise
            self._finished = True

    def _take_chunk(self, chunk: object) -> None:
        if not isinstance(chunk, dict):
            return
        if chunk.get("object") == "error":
            raise reported(chunk)
        self.usage = _usage(chunk.get("usage")) or self.usage
        if (choice := _first_choice(chunk)) is None:
            return
        if isinstance(delta := choice.get("delta"), dict):
            self._take_said(delta)
        if choice.get("finish_reason"):
            self._finished = True

    def _take_completion(self, completion: object) -> None:
        if not isinstance(completion, dict):
            raise not_understood("it is no object")
        if completion.get("error") or completion.get("object") == "error":
            raise reported(completion.get("error") or completion)
        choice = _first_choice(completion)
        if choice is None or not isinstance(message := choice.get("message"), dict):
            raise not_understood("it has no message")
        self.usage = _usage(completion.get("usage"))
        self._take_said(message)
        self._finished = True

    def _take_said(self, said: Mapping[str, object]) -> None:
        content = said.get("content")
        if isinstance(content, str):
            self._spoken.add(content)
        elif content is not None or said.get("tool_calls") or said.get("function_call"):
            self._wordless = True

    def check(self, *, open_end: bool) -> None:
        """Raise ModelFailed where the answer has ended and holds no whole reply."""
        if not self._finished and not open_end and not self._spoken.full:
            raise broken_off()
        if self._spoken.text:
            return
        if self._wordless:
            raise ModelFailed("The model's answer had no text.", "empty")
        raise ModelFailed("The model's answer was empty.", "empty", again=True)


def _first_choice(answer: Mapping[str, object]) -> Mapping[str, object] | None:
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else None


def _usage(told: object) -> Usage | None:
    if not isinstance(told, dict):
        return None
    prompt, completion = told.get("prompt_tokens"), told.get("completion_tokens")
    if isinstance(prompt, int) and isinstance(completion, int) and 0 <= prompt <= MOST_TOKENS >= completion >= 0:
        return Usage(prompt, completion)
    return None
