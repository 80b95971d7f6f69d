"""Any OpenAI-compatible server, and the only importer of openai."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import httpx2
import openai
import structlog
from openai.types.chat import ChatCompletion
from pydantic import SecretStr

from m3.errors import M3Error, StartError

#: Longest reply that is kept, in characters.
MAX_REPLY = 64 * 1024
#: A proxy from the environment is not for this machine, where the demo model runs.
_DIRECT = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}

log = structlog.get_logger(__name__)


class ModelFailed(M3Error):
    """The model gave no reply; the text is a sentence for the person who waits for it."""


class Model:
    def __init__(self, client: openai.AsyncOpenAI, name: str, turn_timeout: float) -> None:
        self._client = client
        self._name = name
        self._turn_timeout = turn_timeout

    async def reply(self, conversation: Sequence[Mapping[str, str]]) -> str:
        """What the model says next. Raises ModelFailed, at the latest after ``turn_timeout`` seconds."""
        try:
            async with asyncio.timeout(self._turn_timeout):
                # Not chat.completions.create, which walks through every message of the conversation looking for
                # fields to rename, of which there are none: half of a turn's CPU time.
                completion = await self._client.post(
                    "/chat/completions",
                    cast_to=ChatCompletion,
                    body={"model": self._name, "messages": list(conversation)},
                )
            content: object = completion.choices[0].message.content
        except TimeoutError as error:
            raise ModelFailed(f"The model took longer than {self._turn_timeout:g} seconds.") from error
        except openai.APIStatusError as error:
            raise ModelFailed(f"The model's server answered with status {error.status_code}.") from error
        except openai.APIConnectionError as error:
            raise ModelFailed("The model's server cannot be reached.") from error
        except Exception as error:  # the client checks nothing: any part may be missing, or be something else
            log.warning("model's answer not understood", error=f"{type(error).__name__}: {error}")
            raise ModelFailed("The model's answer was not understood.") from error
        return _storable(content)


def _storable(content: object) -> str:
    """The reply, such as PostgreSQL can keep it."""
    if not isinstance(content, str):
        raise ModelFailed("The model's answer had no text.")
    text = content.replace("\x00", "").encode("utf-8", "replace").decode("utf-8").strip()
    if not text:
        raise ModelFailed("The model's answer was empty.")
    return text[:MAX_REPLY]


@asynccontextmanager
async def open_model(base_url: str, *, name: str, api_key: SecretStr, turn_timeout: float) -> AsyncIterator[Model]:
    """A model behind an OpenAI-compatible server. Does not connect yet."""
    if not _is_web_address(base_url):
        raise StartError("LLM_BASE_URL must be an address that begins with http:// or https://.")
    if not _can_be_sent(api_key.get_secret_value()):
        raise StartError("LLM_API_KEY has a character that cannot be sent.")
    # No redirects: they would carry the conversation to another server. No retries: the deadline is the turn's.
    async with httpx2.AsyncClient(
        follow_redirects=False, timeout=turn_timeout, mounts=_DIRECT, limits=httpx2.Limits(max_connections=None)
    ) as http:
        client = openai.AsyncOpenAI(
            base_url=base_url, api_key=api_key.get_secret_value(), max_retries=0, http_client=http
        )
        yield Model(client, name, turn_timeout)


def _is_web_address(url: str) -> bool:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        return False
    return parsed.scheme in {"http", "https"} and bool(parsed.host)


def _can_be_sent(key: str) -> bool:
    return key.isascii() and key.isprintable()
