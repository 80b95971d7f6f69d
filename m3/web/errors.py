"""The one shape of every error, and what becomes one."""

import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any
from uuid import UUID

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from m3.errors import (
    BusError,
    BusFull,
    Forbidden,
    IssuerUnavailable,
    KeyReused,
    LastOperator,
    LastOwner,
    M3Error,
    MessageTooLong,
    NoMember,
    NotInvited,
    NotRecorded,
    NotRetryable,
    NotSignedIn,
    PasswordChangeNeeded,
    StoreError,
    Taken,
    ThreadFlooded,
    TooManyInvites,
    TooManySignIns,
    TooOften,
    UnknownMessage,
    UnknownName,
    UnknownThread,
    Unstorable,
    Unsuitable,
    WrongPassword,
)
from m3.web.rates import rate_headers

#: Seconds after which a caller may try again what the room could not take.
RETRY_AFTER = 2

log = structlog.get_logger(__name__)


class ErrorBody(BaseModel):
    """The one shape of every error."""

    code: str
    """Stable; for programs."""
    message: str
    """A sentence; for people."""
    message_id: UUID | None = None
    """The message that the error is about, once it has an id."""


class Refusal(M3Error):
    """An answer other than the one asked for."""

    def __init__(
        self, status: int, code: str, message: str, *, message_id: UUID | None = None, retry: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.body = ErrorBody(code=code, message=message, message_id=message_id)
        self.headers = {"Retry-After": str(RETRY_AFTER)} if retry else {}

    def response(self) -> JSONResponse:
        content = self.body.model_dump(mode="json", exclude_none=True)
        return JSONResponse(content, self.status, self.headers)


#: The statuses that pass.
_FOR_NOW = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


def documented(*refusals: tuple[int, str, str]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's account of the refusals of a route, each a status, a code and a sentence."""
    responses: dict[int | str, dict[str, Any]] = {}
    for status, code, message in refusals:
        entry = responses.setdefault(
            status, {"model": ErrorBody, "description": message, "content": {"application/json": {"examples": {}}}}
        )
        entry["content"]["application/json"]["examples"][code] = {"value": {"code": code, "message": message}}
    return responses


def answer_errors(app: FastAPI) -> None:
    """Give every error of the app the one shape."""
    app.router.default = _nowhere
    app.add_middleware(_ExactPath)

    def refuse(make: Callable[[Any], Refusal]) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
        async def answer(_: Request, error: Exception) -> JSONResponse:  # where it is no coroutine it takes a thread
            return make(error).response()

        return answer

    app.add_exception_handler(M3Error, refuse(refusal_of))
    app.add_exception_handler(RequestValidationError, refuse(_invalid))
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, refuse(_unexpected))


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """For requests and sockets alike."""
    await Refusal(404, "not_found", "Not Found.").response()(scope, receive, send)


class _ExactPath:
    """Keeps a path that ends in a line break from the routes, whose ``$`` would overlook it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = _nowhere if scope.get("path", "").endswith("\n") else self._app
        await app(scope, receive, send)


def _invalid(error: RequestValidationError) -> Refusal:
    if error.errors()[0]["type"] == "json_invalid":
        return not_json()
    return Refusal(422, "invalid_request", problem_sentence(error.errors()))


def _http(error: HTTPException) -> Refusal:
    if error.status_code == HTTPStatus.BAD_REQUEST:  # FastAPI's, where the body could not even be decoded
        return not_json()
    refusal = Refusal(error.status_code, _HTTP_CODES.get(error.status_code, "refused"), f"{error.detail}.")
    refusal.headers.update(error.headers or {})
    return refusal


def _answer_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    refusal = _http(error)
    if "Allow" in refusal.headers:  # the router names the methods of the first route of this path alone
        refusal.headers["Allow"] = ", ".join(method for method in _METHODS if _is_served(request, method))
    return refusal.response()


def _is_served(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


def not_json() -> Refusal:
    return Refusal(400, "malformed_body", "The body is not JSON.")


#: What becomes of each error of ours: its status, and its sentence where its own is not for clients.
_REFUSALS: tuple[tuple[type[M3Error], int, str], ...] = (
    (NotSignedIn, 401, ""),
    (Forbidden, 403, ""),
    (WrongPassword, 403, ""),
    (PasswordChangeNeeded, 403, ""),
    (UnknownThread, 404, ""),
    (NotInvited, 404, ""),
    (TooOften, 429, ""),
    (TooManySignIns, 503, ""),
    (UnknownName, 404, ""),
    (NoMember, 412, ""),
    (Taken, 409, ""),
    (TooManyInvites, 409, ""),
    (LastOwner, 409, ""),
    (LastOperator, 409, ""),
    (Unsuitable, 422, ""),
    (MessageTooLong, 422, ""),
    (ThreadFlooded, 429, ""),
    (KeyReused, 422, ""),
    (UnknownMessage, 404, ""),
    (NotRetryable, 409, ""),
    (NotRecorded, 503, ""),
    (BusFull, 503, "Too much waits to be recorded; try again later."),
    (BusError, 503, "The message could not be handed on; try again."),
    (Unstorable, 422, "There is a character in it that cannot be kept."),
    (StoreError, 503, "The database is away; try again."),
    (IssuerUnavailable, 503, "Whoever issued this token is away; try again."),
)


def refusal_of(error: M3Error, message_id: UUID | None = None) -> Refusal:
    """What a client is told of an error of ours. ``message_id``: of the message that it is about, if any."""
    if isinstance(error, Refusal):
        return error
    for kind, status, sentence in _REFUSALS:
        if isinstance(error, kind):
            if sentence:
                log.warning("refused", code=error.code, reason=str(error))
            message_id = error.message_id if isinstance(error, NotRecorded) else message_id
            refusal = Refusal(
                status, error.code, sentence or str(error), message_id=message_id, retry=status in _FOR_NOW
            )
            refusal.headers |= _headers_of(error)
            return refusal
    return _unexpected(error)


def _headers_of(error: M3Error) -> dict[str, str]:
    match error:
        case NotSignedIn():
            return {"WWW-Authenticate": "Bearer"}
        case TooOften():
            return rate_headers(error)
        case _:
            return {}


def _unexpected(_: Exception) -> Refusal:
    return Refusal(500, "internal_error", "Something went wrong here; the server's log says what.")


_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def problem_sentence(problems: Any) -> str:
    """The first of pydantic's problems as a sentence. It does not repeat the input, which may be anything; a field that
    the room does not know is named only where its name is one."""
    problem = problems[0]
    where = ".".join(part for each in problem["loc"] if _NAME.fullmatch(part := str(each)) and part != "body")
    what = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {what}." if where else f"{what}."
