"""Asking a model behind any OpenAI-compatible server; the only importer of openai."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import get_args

import httpx2
import openai
import stamina
import stamina.instrumentation
import structlog
from pydantic import SecretStr

from m3 import metrics, tracing
from m3.errors import StartError
from services.agent import failures
from services.agent.answer import Answer, Usage
from services.agent.failures import FIRST_WAIT, ContextTooLong, Kind, ModelFailed, TooLarge
from services.agent.spoken import Spoken

__all__ = ["ContextTooLong", "Model", "ModelFailed", "Usage", "open_model"]

#: Longest answer that is read, in bytes. What wraps a reply is larger than the reply, often by a hundred times.
MAX_ANSWER = 16 * 1024 * 1024
#: Longest wait between attempts, in seconds. It begins with FIRST_WAIT, and doubles.
LONGEST_WAIT = 5.0
#: Seconds by which these waits differ at random, so that those who failed together do not come back together.
JITTER = 0.25
#: Seconds in which a server may take a connection: another attempt may find it less crowded.
CONNECT_TIMEOUT = 10.0

#: What a server answers that does not list its models.
_NO_LIST = {404, 405, 501}
#: What asks for the count of tokens at the end of a stream. Older servers refuse it.
_COUNTING = "stream_options"
#: A proxy from the environment is not for this machine, where the demo model runs.
_DIRECT = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}

#: Most that is logged of what the model's server says of an error, in characters.
MAX_COMPLAINT = 500

log = structlog.get_logger(__name__)

_errors = {kind: metrics.MODEL_ERRORS.labels(kind) for kind in get_args(Kind)}

# By itself stamina counts retries under names of its own and logs them. We count every failed attempt by its kind, the
# last one too, and log each of them once.
stamina.instrumentation.set_on_retry_hooks(())


class _CannotCount(ModelFailed):
    """The server refuses to count tokens, and can be asked without."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, "refused", again=0.0)


class Model:
    def __init__(
        self, client: openai.AsyncOpenAI, name: str, *, attempts: int = 3, open_end: bool = False, sealed: bool = False
    ) -> None:
        self.name = name
        self._client = client
        self._attempts = attempts
        self._open_end = open_end
        self._sealed = sealed
        self._counts = True  # as far as we know

    async def reply(self, conversation: Sequence[Mapping[str, str]], spoken: Spoken) -> Usage | None:
        """Have the model say what comes next, into ``spoken``; returns the tokens, unless its server does not count
        them. Raises ModelFailed.

        It has no deadline: whoever asks sets one, and cancels it to stop the model, whose server sees its connection
        closed.
        """
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": self.name,
        }
        with tracing.inner(f"chat {self.name}", "CLIENT", attributes) as span:
            usage = await self._ask_repeatedly(conversation, spoken)
            span.ended(_counted(usage) if usage else {})
            return usage

    async def _ask_repeatedly(self, conversation: Sequence[Mapping[str, str]], spoken: Spoken) -> Usage | None:
        counting = self._counts
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
                    return await self._ask(conversation, spoken, counting=counting)
                except ModelFailed as failure:
                    _errors[failure.kind].inc()
                    log.warning("model asked in vain", kind=failure.kind, attempt=attempt.num, reason=str(failure))
                    if isinstance(failure, _CannotCount):
                        counting = False
                        # Who writes of it may be who made the server say so: then it holds for this reply alone.
                        self._counts = self._counts and _mentioned(_COUNTING, conversation)
                    raise
        raise AssertionError("unreachable")

    async def known(self) -> list[str] | None:
        """The names of the models that its server has, or None where it does not tell. Raises ModelFailed."""
        try:
            listed = await self._client.get("/models", cast_to=object)
        except Exception as error:
            if isinstance(error, openai.APIStatusError) and error.status_code in _NO_LIST:
                return None
            self._log(error)
            raise _failure(error, begun=False) from error
        models = listed.get("data") if isinstance(listed, dict) else None
        if not isinstance(models, list):
            return None
        return [str(model["id"]) for model in models if isinstance(model, dict) and "id" in model]

    async def _ask(self, conversation: Sequence[Mapping[str, str]], spoken: Spoken, *, counting: bool) -> Usage | None:
        """Ask once."""
        answer = Answer(spoken)
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
                    **({_COUNTING: {"include_usage": True}} if counting else {}),
                },
                stream=True,
                stream_cls=openai.AsyncStream[object],
            )
            begun = True
            async with stream:  # or its connection stays open, where we stop reading
                await answer.listen(stream.response, stream)
        except ModelFailed:
            raise
        except Exception as error:  # the client checks nothing: any part may be missing, or be something else
            failure = _failure(error, begun=begun)
            self._log(error)
            if counting and failure.kind == "refused" and _is_about_counting(error):
                raise _CannotCount(str(failure)) from error
            raise failure from error
        answer.check(open_end=self._open_end)
        return answer.usage

    def _log(self, error: Exception) -> None:
        """What the server said of it, for the operator alone; it may repeat the key, and what people said, of which the
        log of a room that seals it has nothing."""
        if not isinstance(error, openai.APIError) or error.body is None:
            return
        if self._sealed:
            body = error.body if isinstance(error.body, dict) else {}
            told = {part: body[part] for part in ("type", "code") if _is_a_word(body.get(part))}
            status = error.status_code if isinstance(error, openai.APIStatusError) else None
            log.warning("model's server complained", status=status, **told)
        else:
            said = str(error.body).replace(self._client.api_key, "[key]")
            log.warning("model's server complained", said=said[:MAX_COMPLAINT])


def _is_a_word(told: object) -> bool:
    """And so no part of a conversation."""
    return isinstance(told, str | int) and re.fullmatch("[a-z0-9_]{1,40}", str(told)) is not None


def _counted(usage: Usage) -> dict[str, int]:
    return {"gen_ai.usage.input_tokens": usage.prompt_tokens, "gen_ai.usage.output_tokens": usage.completion_tokens}


def _again(error: Exception) -> bool | float:
    return error.again if isinstance(error, ModelFailed) else False


def _mentioned(word: str, conversation: Sequence[Mapping[str, str]]) -> bool:
    return any(word in message["content"].lower() for message in conversation)


# ---- The client's errors


def _failure(error: Exception, *, begun: bool) -> ModelFailed:
    """What an error of the client means. ``begun``: it came when the answer had begun."""
    match error:
        case openai.APIStatusError():
            return failures.refusal(error.status_code, error.body, error.response.headers.get("Retry-After", ""))
        case openai.APITimeoutError() if not isinstance(error.__cause__, httpx2.ConnectTimeout):
            return failures.too_slow()
        case openai.APIConnectionError() | httpx2.TransportError():
            return failures.broken_off() if begun else failures.unreachable()
        case openai.APIError():
            return failures.reported(error.body)
        case TooLarge():
            return failures.too_large()
        case _:
            return failures.not_understood(type(error).__name__)  # whose text may repeat a part of the answer


def _is_about_counting(error: Exception) -> bool:
    return isinstance(error, openai.APIError) and failures.is_about(_COUNTING, error.body)


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
    sealed: bool = False,
) -> AsyncIterator[Model]:
    """A model behind an OpenAI-compatible server, asked up to ``attempts`` times for a reply. Does not connect yet.

    ``open_end`` takes a streamed reply as whole that ends without a finish_reason; ``sealed`` keeps what the server
    says of an error out of the log.
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
        yield Model(client, name, attempts=attempts, open_end=open_end, sealed=sealed)


async def _bound(response: httpx2.Response) -> None:
    """Read no more of an answer than MAX_ANSWER: a line may never end, and is kept until it does."""
    if response.headers.get("Content-Encoding", "identity") != "identity":  # a few bytes may unfold into very many
        raise failures.not_understood("it is compressed, which was not asked for")
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
                raise TooLarge
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
