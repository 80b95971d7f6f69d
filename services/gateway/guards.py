"""What a page from elsewhere could send without being asked, which is refused, and refusals that many routes share."""

from typing import Any

from fastapi import Request

from m3.access.names import UNSUITABLE_NAME
from m3.web import Refusal, not_json
from m3.web.origins import NOT_OF_ORIGINS, is_foreign
from services.gateway.schemas import Form

FOREIGN = (403, "foreign_origin", f"A page of another host or port may not do this. {NOT_OF_ORIGINS}")
INVALID = (422, "invalid_request", "message: must not be blank.")
INVALID_PAGE = (422, "invalid_request", "query.limit: Input should be greater than or equal to 1.")
INVALID_NAME = (
    422,
    "invalid_request",
    UNSUITABLE_NAME,
)
INVALID_THREAD = (422, "invalid_request", "path.thread_id: String should match pattern '^[A-Za-z0-9_:@-]{1,128}$'.")
NOT_FOUND = (404, "not_found", "There is no such message.")
NO_BROKER = (503, "broker_unavailable", "The message could not be handed on; try again.")
NO_DATABASE = (503, "database_unavailable", "The database is away; try again.")
TOO_MANY = (429, "thread_flooded", "Too many messages of programs wait in the thread; try again later.")
NOT_RECORDED = (503, "not_recorded", "The message was not recorded in time; it may be recorded later.")
NOT_SIGNED_IN = (401, "not_signed_in", "Sign in first.")
FORBIDDEN = (403, "forbidden", "You may not do this.")
WRONG_PASSWORD = (403, "wrong_password", "The password is wrong.")
NO_THREAD = (404, "not_found", "There is no such thread.")
NO_INVITE = (404, "not_found", "The invite is not good (any more).")
NO_SUCH_NAME = (404, "not_found", "There is nobody of that name.")
NO_MEMBER = (412, "no_member", "There is no member of that name (any more).")
TAKEN = (409, "taken", "There is somebody of that name.")
TOO_MANY_INVITES = (
    409,
    "too_many_invites",
    "A thread has at most 100 invites at a time; take one back, or wait until one expires.",
)
LAST_OWNER = (409, "last_owner", "A thread must keep an owner.")
LAST_OPERATOR = (409, "last_operator", "A tenant must keep an operator.")
TOO_MANY_WRONG = (
    429,
    "rate_limited",
    "Too many wrong passwords, at most 10 in 300 seconds; try again in 287 s.",
)
TOO_OFTEN = (429, "rate_limited", "Too many changes, at most 300 in 60 seconds; try again in 41 s.")
TOO_MANY_SIGN_INS = (503, "overloaded", "Too many sign in at once; try again later.")
OVERLOADED = (503, "overloaded", "Too much waits to be recorded; try again later.")


#: What OpenAPI is told of a header that is read without FastAPI, since it is never wrong.
TRACEPARENT: dict[str, Any] = {
    "parameters": [
        {
            "name": "traceparent",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "The trace to which this belongs, by the W3C's Trace Context; ignored where it is none.",
        }
    ]
}

#: What OpenAPI is told of M3-Client.
NAMED = (
    "The sender's name; its keys do not meet those of other names. In a room that asks nobody who they are it is the "
    "`author` too."
)

JSON = "application/json"
NDJSON = "application/x-ndjson"


def of_a_body(limit: int, kinds: str = JSON) -> tuple[tuple[int, str, str], ...]:
    """The refusals of every route that takes a body: of at most so many bytes, and of these kinds."""
    return (
        (400, "malformed_body", "The body is not JSON."),
        (400, "malformed_request", "Invalid HTTP request received."),
        (408, "body_too_slow", "The body did not arrive within 10 seconds."),
        (413, "body_too_long", f"The body is longer than {limit} bytes."),
        (415, "unsupported_media_type", f"The body must be {kinds}."),
        (431, "head_too_long", "The request's head is longer than 65536 bytes."),
    )


async def plain(request: Request) -> None:
    """Refuse bodies other than JSON, which a page of another origin could send without being asked; and a header of one
    value that is there twice."""
    if kind_of(request) != JSON:
        raise Refusal(415, "unsupported_media_type", f"The body must be {JSON}.")
    names = [name for name, _ in request.scope["headers"]]
    for name in (b"idempotency-key", b"last-event-id", b"if-match"):
        if names.count(name) > 1:
            raise Refusal(422, "invalid_request", f"header.{name.decode()}: may be there once only.")
    if b"\x00" in await request.body():  # UTF-16 or UTF-32, which Python's parser takes too
        raise not_json()


async def form(request: Request) -> None:
    """As ``plain``, for a route that takes a Form: say what that has where the body is none."""
    await plain(request)
    if not isinstance(await request.json() if await request.body() else None, dict):
        taken = request.scope["route"].body_field.field_info.annotation
        assert issubclass(taken, Form)
        raise Refusal(422, "invalid_request", taken.told())


def kind_of(request: Request) -> str:
    """The media type of the request's body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def own(request: Request) -> None:
    """Refuse pages from elsewhere, where no body keeps them out."""
    if is_foreign(request):
        raise Refusal(*FOREIGN)
