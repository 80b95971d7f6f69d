"""How many tokens a text has, and the only importer of tiktoken."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from tiktoken import Encoding

#: Tokens of a text.
Count = Callable[[str], int]

#: Seconds that tiktoken may take to fetch a model's table.
LOAD_TIMEOUT = 5.0
#: So much of a text is counted, in characters, and the rest estimated. It takes 35 ms at worst, in which the process
#: does nothing else.
LONGEST_COUNTED = 64 * 1024

log = structlog.get_logger(__name__)


async def counter_of(model: str) -> Count:
    """Counts as the model does where its table is known and can be had, or else estimates."""
    try:
        encoding = await _encoding_of(model)
    except KeyError:  # not a model of tiktoken's
        return estimate
    except Exception as error:  # noqa: BLE001  # the network's, the disk's, or of a table that is not the right one
        log.warning("tokens are estimated", model=model, reason=f"{type(error).__name__}: {error}")
        return estimate

    def count(text: str) -> int:
        # What would be a special token in a prompt is plain text in a message.
        return len(encoding.encode_ordinary(text[:LONGEST_COUNTED])) + estimate(text[LONGEST_COUNTED:])

    return count


def estimate(text: str) -> int:
    """Four characters of English are a token, by OpenAI's own rule of thumb. A character of Chinese, Japanese or Korean
    is about one: everyday Chinese took 1.15 tokens a character with GPT-4's table and 0.7 with GPT-4o's."""
    ascii_characters = len(text.encode("ascii", "ignore"))
    return -(-ascii_characters // 4) + len(text) - ascii_characters


async def _encoding_of(model: str) -> "Encoding":
    """The model's table. Raises KeyError for a model that tiktoken does not know."""
    loaded: Future[Encoding] = Future()
    loaded.set_running_or_notify_cancel()  # so that a late end of the thread finds it as it was
    # A thread that nobody waits for: tiktoken fetches a table that it does not have yet, without a deadline.
    Thread(target=_load, args=(model, loaded), name="tiktoken", daemon=True).start()
    try:
        async with asyncio.timeout(LOAD_TIMEOUT):
            return await asyncio.wrap_future(loaded)
    except TimeoutError as error:
        raise TimeoutError(f"no table of the model's tokens within {LOAD_TIMEOUT:g} seconds") from error


def _load(model: str, loaded: "Future[Encoding]") -> None:
    try:
        import tiktoken  # here, since it takes 30 to 80 ms

        loaded.set_result(tiktoken.encoding_for_model(model))
    except Exception as error:  # noqa: BLE001  # whatever it is, it is told to whoever waits
        loaded.set_exception(error)
