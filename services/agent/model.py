"""Any OpenAI-compatible server, and the only importer of openai."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

import httpx2
import openai
import stamina
import stamina.instrumentation
import structlog
from pydantic import SecretStr

from m3 import metrics
from m3.errors import M3Error, StartError
from services.agent.spoken import MAX_REPLY, Spoken

__all__ = ["MAX_REPLY", "Answer", "ContextTooLong", "Model", "ModelFailed", "Usage", "open_model"]

#: Longest answer that is read, in bytes. What wraps a reply is larger than the reply, often by a hundred times.
MAX_ANSWER = 16 * 1024 * 1024
#: Seconds before the second attempt, doubled for each one after it, and the longest of these waits.
FIRST_WAIT, LONGEST_WAIT = 0.5, 5.0
#: Seconds by which these waits differ at random, so that those who failed together do not come back together.
JITTER = 0.25
#: Longest that a server may ask us to wait, in seconds. Somebody waits for the reply.
MOST_PATIENCE = 20.0
#: Nobody means so many seconds, or more.
_ENDLESS = 10**9
#: Seconds in which a server may take a connection: another attempt may find it less crowded.
CONNECT_TIMEOUT = 10.0
#: More tokens than this are no count of tokens.
MOST_TOKENS = 2**31 - 1
#: Seconds in which a server may tell its count of tokens, when the reply itself is whole.
AFTERWORD = 1.0

#: A proxy from the environment is not for this machine, where the demo model runs.
_DIRECT = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}
#: How servers say that a conversation is too long for their model. There is no standard for it.
_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|available context size|context length|context window"
    r"|too many tokens|maximum number of tokens|maximum model length|(prompt|input) is too long"
)
_NOT_FOUND, _TOO_MANY_REQUESTS, _SERVER_ERROR = 404, 429, 500

log = structlog.get_logger(__name__)

# By itself stamina counts retries under names of its own and logs them. We count every failed attempt by its kind, the
# last one too, and log each of them once.
stamina.instrumentation.set_on_retry_hooks(())

#: What m3_model_errors tells apart.
Kind = Literal[
    "timeout",
    "connection",
    "rate_limit",
    "server_error",
    "refused",
    "cut",
    "empty",
    "not_understood",
    "context_too_long",
]


class ModelFailed(M3Error):
    """The model gave no reply; the text is a sentence for the person who waits for it.

    ``again`` tells whether it may help to ask once more, or after how many seconds, and ``attempts`` how often it was
    asked.
    """

    def __init__(self, sentence: str, kind: Kind = "not_understood", *, again: bool | float = False) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.again = again
        self.attempts = 1


class ContextTooLong(ModelFailed):
    """The server says that the conversation is longer than the model takes."""

    def __init__(self, sentence: str = "The conversation is longer than the model takes.") -> None:
        super().__init__(sentence, "context_too_long")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the server counts them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What came with a reply. The server may not have counted; ``attempts`` tells how often the model was asked."""

    usage: Usage | None
    attempts: int


class Model:
    def __init__(self, client: openai.AsyncOpenAI, name: str, *, attempts: int = 3, open_end: bool = False) -> None:
        self.name = name
        self._client = client
        self._attempts = attempts
        self._open_end = open_end
        self._counts = True  # as far as we know

    async def reply(self, conversation: Sequence[Mapping[str, str]], spoken: Spoken) -> Answer:
        """Have the model say what comes next, into ``spoken``. Raises ModelFailed.

        It has no deadline: whoever asks sets one, and cancels it to stop the model, whose server sees its connection
        closed.
        """
        async for attempt in stamina.retry_context(
            on=_again,
            attempts=self._attempts,
            timeout=None,
            wait_initial=FIRST_WAIT,
            wait_max=LONGEST_WAIT,
            wait_jitter=JITTER,
        ):
            with attempt:
                if attempt.num > 1:
                    spoken.restart()
                try:
                    usage = await self._ask(conversation, spoken)
                except ModelFailed as failure:
                    failure.attempts = attempt.num
                    metrics.MODEL_ERRORS.labels(failure.kind).inc()
                    log.warning("model asked in vain", kind=failure.kind, attempt=attempt.num, reason=str(failure))
                    raise
                return Answer(usage, attempt.num)
        raise AssertionError("unreachable")

    async def _ask(self, conversation: Sequence[Mapping[str, str]], spoken: Spoken) -> Usage | None:
        """Ask once."""
        heard = _Heard(spoken)
        begun = False
        try:
            # Neither chat.completions.create, which walks through every message of the conversation looking for fields
            # to rename, nor its models of a chunk: plain objects take a fraction of the CPU time.
            stream = await self._client.post(
                "/chat/completions",
                cast_to=object,
                body={
                    "model": self.name,
                    "messages": list(conversation),
                    "stream": True,
                    **({"stream_options": {"include_usage": True}} if self._counts else {}),
                },
                stream=True,
                stream_cls=openai.AsyncStream[object],
            )
            begun = True
            async with stream:  # or its connection stays open, where we stop reading
                await heard.listen(stream)
        except ModelFailed:
            raise
        except Exception as error:  # the client checks nothing: any part may be missing, or be something else
            failure = _failure(error, begun=begun)
            if self._counts and failure.kind == "refused" and "stream_options" in str(error):
                self._counts, failure.again = False, 0.0  # an older server, which can do without
            raise failure from error
        heard.check(open_end=self._open_end)
        return heard.usage


def _again(error: Exception) -> bool | float:
    return error.again if isinstance(error, ModelFailed) else False


# ---- What the server answers


class _Heard:
    """One answer, as it comes in."""

    def __init__(self, spoken: Spoken) -> None:
        self.usage: Usage | None = None
        self._spoken = spoken
        self._finished = False
        #: Whether it says something that is no text: it calls a tool, or sends a picture.
        self._wordless = False

    async def listen(self, stream: openai.AsyncStream[object]) -> None:
        media_type = stream.response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type.endswith("json"):  # from servers that do not stream
            self._take_completion(json.loads(await stream.response.aread()))
        elif "html" in media_type:
            raise _not_understood(f"it is {media_type}")
        else:
            await self._take_chunks(stream)

    async def _take_chunks(self, stream: openai.AsyncStream[object]) -> None:
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(None) as patience:
                async for chunk in stream:
                    self._take_chunk(chunk)
                    if self._spoken.full:
                        return
                    if self._finished and patience.when() is None:
                        patience.reschedule(now() + AFTERWORD)
        except Exception as error:
            # A reply that is whole is not lost with what should have come after it. One that is too long is cut.
            if not self._finished and not (isinstance(error, _TooLarge) and self._spoken.text):
                raise
            self._finished = True

    def _take_chunk(self, chunk: object) -> None:
        if not isinstance(chunk, dict):
            return
        if chunk.get("object") == "error":
            raise _reported(chunk)
        self.usage = _usage(chunk.get("usage")) or self.usage
        if (choice := _first_choice(chunk)) is None:
            return
        if isinstance(delta := choice.get("delta"), dict):
            self._take_said(delta)
        if choice.get("finish_reason"):
            self._finished = True

    def _take_completion(self, completion: object) -> None:
        if not isinstance(completion, dict):
            raise _not_understood("it is no object")
        if completion.get("error") or completion.get("object") == "error":
            raise _reported(completion.get("error") or completion)
        choice = _first_choice(completion)
        if choice is None or not isinstance(message := choice.get("message"), dict):
            raise _not_understood("it has no message")
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
            raise _broken_off()
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


# ---- What goes wrong


class _TooLarge(Exception):
    """The answer has more than MAX_ANSWER bytes."""


def _failure(error: Exception, *, begun: bool) -> ModelFailed:
    """What an error of the client means. ``begun``: it came when the answer had begun."""
    match error:
        case openai.APIStatusError():
            return _refusal(error)
        case openai.APITimeoutError() if not isinstance(error.__cause__, httpx2.ConnectTimeout):
            return ModelFailed("The model took too long.", "timeout")
        case openai.APIConnectionError() | httpx2.TransportError():
            return _broken_off() if begun else _unreachable()
        case openai.APIError():
            return _reported(error.body)
        case _TooLarge():
            return ModelFailed("The model's answer was too long.")
        case _:
            return _not_understood(f"{type(error).__name__}: {error}")


def _unreachable() -> ModelFailed:
    return ModelFailed("The model's server cannot be reached.", "connection", again=True)


def _broken_off() -> ModelFailed:
    return ModelFailed("The model's answer broke off.", "cut", again=True)


def _not_understood(why: str) -> ModelFailed:
    log.warning("model's answer not understood", error=why[:200])
    return ModelFailed("The model's answer was not understood.", "not_understood")


def _refusal(error: openai.APIStatusError) -> ModelFailed:
    """The server answered, with a status that is none of success."""
    status = error.status_code
    sentence = f"The model's server answered with status {status}"
    if status in {400, 413, 422, 500} and _is_too_long(error.body):
        return ContextTooLong()
    if status == _TOO_MANY_REQUESTS:
        return _put_off(error, sentence, "rate_limit")
    if status >= _SERVER_ERROR:
        return _put_off(error, sentence, "server_error")
    if status in {401, 403}:
        return ModelFailed(f"{sentence}: it refuses the key.", "refused")
    if status == _NOT_FOUND:
        return ModelFailed(f"{sentence}: it does not know the model or the address.", "refused")
    return ModelFailed(f"{sentence}.", "refused")


def _put_off(error: openai.APIStatusError, sentence: str, kind: Kind) -> ModelFailed:
    """The server may answer later, and may have told when."""
    wait = _retry_after(error.response.headers.get("Retry-After", ""))
    if wait is None:
        return ModelFailed(f"{sentence}.", kind, again=True)
    if wait > MOST_PATIENCE:
        return ModelFailed(f"{sentence}: it asks to wait for {wait:.0f} seconds.", kind)
    return ModelFailed(f"{sentence}.", kind, again=max(wait, FIRST_WAIT))


def _retry_after(told: str) -> float | None:
    """Seconds until then: HTTP has it in seconds, or as a date."""
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(told).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return seconds if abs(seconds) < _ENDLESS else None


def _reported(error: object) -> ModelFailed:
    """The server sent an error in the place of a reply, though its status was one of success."""
    if _is_too_long(error):
        return ContextTooLong()
    code = str(error.get("code")) if isinstance(error, dict) else ""
    sentence = "The model's server reported an error."
    if code == str(_TOO_MANY_REQUESTS):
        return ModelFailed(sentence, "rate_limit", again=True)
    if re.fullmatch("4[0-9][0-9]", code):
        return ModelFailed(sentence, "refused")
    return ModelFailed(sentence, "server_error", again=True)


def _is_too_long(error: object) -> bool:
    """Whether the error says so, in those of its parts that do not repeat what people said."""
    told = [error.get(part) for part in ("code", "type", "message", "detail")] if isinstance(error, dict) else [error]
    return any(isinstance(part, str) and _TOO_LONG.search(part[:10_000].lower()) for part in told)


# ---- The client


@asynccontextmanager
async def open_model(  # noqa: PLR0913
    base_url: str,
    *,
    name: str,
    api_key: SecretStr,
    turn_timeout: float,
    attempts: int = 3,
    open_end: bool = False,
) -> AsyncIterator[Model]:
    """A model behind an OpenAI-compatible server, asked up to ``attempts`` times for a reply. Does not connect yet.

    ``open_end`` takes a streamed reply as whole that ends without a finish_reason.
    """
    if not _is_web_address(base_url):
        raise StartError("LLM_BASE_URL must be an address that begins with http:// or https://.")
    if not _can_be_sent(api_key.get_secret_value()):
        raise StartError("LLM_API_KEY has a character that cannot be sent.")
    timeout = httpx2.Timeout(turn_timeout, connect=min(turn_timeout, CONNECT_TIMEOUT))
    # No redirects: they would carry the conversation to another server.
    async with httpx2.AsyncClient(
        follow_redirects=False,
        mounts=_DIRECT,
        limits=httpx2.Limits(max_connections=None),
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [_bound]},
    ) as http:
        client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key.get_secret_value(),
            timeout=timeout,
            max_retries=0,  # ours know more of what went wrong
            http_client=http,
        )
        yield Model(client, name, attempts=attempts, open_end=open_end)


async def _bound(response: httpx2.Response) -> None:
    """Read no more of an answer than MAX_ANSWER: a line may never end, and is kept until it does."""
    if response.headers.get("Content-Encoding", "identity") != "identity":  # a few bytes may unfold into very many
        raise _not_understood("it is compressed, which was not asked for")
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream)


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_ANSWER
        async for piece in self._stream:
            left -= len(piece)
            if left < 0:
                raise _TooLarge
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


def _is_web_address(url: str) -> bool:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        return False
    return parsed.scheme in {"http", "https"} and bool(parsed.host)


def _can_be_sent(key: str) -> bool:
    return key.isascii() and key.isprintable()
