"""What goes wrong with a model, as sentences for the person who waits for its reply."""

import re
import time
from email.utils import parsedate_to_datetime
from typing import Literal

import structlog

from m3.errors import M3Error

#: Seconds before the second attempt, at least.
FIRST_WAIT = 0.5
#: Longest that a server may ask us to wait, in seconds. Somebody waits for the reply.
MOST_PATIENCE = 20.0
#: Nobody means so many seconds, or more.
_ENDLESS = 10**9

#: How servers say that a conversation is too long for their model. There is no standard for it.
_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|available context size|context length|context window"
    r"|too many tokens|maximum number of tokens|maximum model length|(prompt|input) is too long"
)
#: Characters in which an error names the parameter that it is about, before it may repeat what it was sent.
_BEGINNING = 100
_NOT_FOUND, _TOO_MANY_REQUESTS, _SERVER_ERROR = 404, 429, 500

log = structlog.get_logger(__name__)

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

    ``again`` tells whether it may help to ask once more, or after how many seconds.
    """

    def __init__(self, sentence: str, kind: Kind = "not_understood", *, again: bool | float = False) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.again = again


class ContextTooLong(ModelFailed):
    """The server says that the conversation is longer than the model takes."""

    def __init__(self, sentence: str = "The conversation is longer than the model takes.") -> None:
        super().__init__(sentence, "context_too_long")


class KeyRefused(ModelFailed):
    """The server does not take the key."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, "refused")


class NotFound(ModelFailed):
    """The server does not know the model, or the address."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, "refused")


class TooLarge(Exception):
    """The answer has more bytes than are read."""


def unreachable() -> ModelFailed:
    return ModelFailed("The model's server cannot be reached.", "connection", again=True)


def too_slow() -> ModelFailed:
    return ModelFailed("The model took too long.", "timeout")


def broken_off() -> ModelFailed:
    return ModelFailed("The model's answer broke off.", "cut", again=True)


def too_large() -> ModelFailed:
    return ModelFailed("The model's answer was too long.")


def not_understood(why: str) -> ModelFailed:
    log.warning("model's answer not understood", error=why[:200])
    return ModelFailed("The model's answer was not understood.", "not_understood")


def refusal(status: int, error: object, retry_after: str) -> ModelFailed:
    """The server answered, with a status that is none of success. ``retry_after`` is the header, if there is one."""
    sentence = f"The model's server answered with status {status}"
    if status in {400, 413, 422, 500} and _is_too_long(error):
        return ContextTooLong()
    if status == _TOO_MANY_REQUESTS:
        return _put_off(retry_after, sentence, "rate_limit")
    if status >= _SERVER_ERROR:
        return _put_off(retry_after, sentence, "server_error")
    if status in {401, 403}:
        return KeyRefused(f"{sentence}: it refuses the key.")
    if status == _NOT_FOUND:
        return NotFound(f"{sentence}: it does not know the model or the address.")
    return ModelFailed(f"{sentence}.", "refused")


def _put_off(retry_after: str, sentence: str, kind: Kind) -> ModelFailed:
    """The server may answer later, and may have told when."""
    wait = _seconds(retry_after)
    if wait is None:
        return ModelFailed(f"{sentence}.", kind, again=True)
    if wait > MOST_PATIENCE:
        return ModelFailed(f"{sentence}: it asks to wait for {wait:.0f} seconds.", kind)
    return ModelFailed(f"{sentence}.", kind, again=max(wait, FIRST_WAIT))


def _seconds(retry_after: str) -> float | None:
    """Seconds until then: HTTP has it in seconds, or as a date."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return seconds if abs(seconds) < _ENDLESS else None


def reported(error: object) -> ModelFailed:
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


def is_about(parameter: str, error: object) -> bool:
    """Whether the error says that the request's parameter is what is wrong."""
    if not isinstance(error, dict):
        return _names(parameter, error)
    message = error.get("message")
    detail = error.get("detail") or (message.get("detail") if isinstance(message, dict) else None)
    problems = detail if isinstance(detail, list) else [detail]
    return (
        str(error.get("param")).partition(".")[0] == parameter
        or _names(parameter, message)
        or any(_names(parameter, problem) or _is_at(parameter, problem) for problem in problems)
    )


def _names(parameter: str, sentence: object) -> bool:
    return isinstance(sentence, str) and parameter in sentence[:_BEGINNING]


def _is_at(parameter: str, problem: object) -> bool:
    """FastAPI's way to say it, and pydantic's."""
    where = problem.get("loc") if isinstance(problem, dict) else None
    return isinstance(where, list) and parameter in where[:2]
