"""Any OpenAI-compatible server, and the only importer of openai."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx2
import openai
import structlog
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam
from pydantic import SecretStr

from m3.errors import M3Error, StartError

#: Longest reply that is kept, in characters.
MAX_REPLY = 64 * 1024

log = structlog.get_logger(__name__)


class ModelFailed(M3Error):
    """The model gave no reply; the text is a sentence for the person who waits for it."""


class Model:
    def __init__(self, client: openai.AsyncOpenAI, name: str, turn_timeout: float) -> None:
        self._client = client
        self._name = name
        self._turn_timeout = turn_timeout

    async def reply(self, conversation: Sequence[ChatCompletionMessageParam]) -> str:
        """What the model says next. Raises ModelFailed, at the latest after ``turn_timeout`` seconds."""
        try:
            async with asyncio.timeout(self._turn_timeout):
                completion = await self._client.chat.completions.create(model=self._name, messages=conversation)
        except TimeoutError as error:
            raise ModelFailed(f"The model took longer than {self._turn_timeout:g} seconds.") from error
        except openai.APIStatusError as error:
            raise ModelFailed(f"The model's server answered with status {error.status_code}.") from error
        except openai.APIConnectionError as error:
            raise ModelFailed("The model's server cannot be reached.") from error
        except Exception as error:  # a broken answer breaks the client in ways that no list covers
            log.exception("model's answer not understood")
            raise ModelFailed("The model's answer was not understood.") from error
        return _text(completion)


def _text(completion: object) -> str:
    """The reply in a completion, such as PostgreSQL can keep."""
    # The client does not check what it is given: a page of HTML arrives as a string, and any field may be missing.
    if not isinstance(completion, ChatCompletion) or not completion.choices:
        raise ModelFailed("The model's answer was not understood.")
    message = completion.choices[0].message
    text = message.content if message is not None else None
    if not isinstance(text, str):
        raise ModelFailed("The model's answer had no text.")
    text = text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8").strip()
    if not text:
        raise ModelFailed("The model's answer was empty.")
    return text[:MAX_REPLY]


@asynccontextmanager
async def open_model(base_url: str, *, name: str, api_key: SecretStr, turn_timeout: float) -> AsyncIterator[Model]:
    """A model behind an OpenAI-compatible server. Does not connect yet."""
    if not base_url.startswith(("http://", "https://")):
        raise StartError("LLM_BASE_URL must begin with http:// or https://.")
    # No redirects: they would carry the conversation to another server. No retries: the deadline is the turn's.
    async with httpx2.AsyncClient(follow_redirects=False, timeout=turn_timeout) as http:
        client = openai.AsyncOpenAI(
            base_url=base_url, api_key=api_key.get_secret_value(), max_retries=0, http_client=http
        )
        yield Model(client, name, turn_timeout)
