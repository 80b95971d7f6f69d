"""Request bodies within a bound and a deadline."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from m3.web.errors import Refusal

#: Seconds in which a request's body must arrive.
BODY_TIMEOUT = 10.0


class BoundedBody:
    """Reads a request's whole body before the app sees it, within a bound and a deadline.

    ``limit``: in bytes; ``limits`` has those of paths, as routes write them, that have another. FastAPI's own
    ``max_body_size`` knows no deadline, and refuses with plain text where no body was expected.
    """

    def __init__(self, app: ASGIApp, limit: int, limits: Mapping[str, int] | None = None) -> None:
        self._app = app
        self._limit = limit
        self._limits = [(compile_path(path)[0], other) for path, other in (limits or {}).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + BODY_TIMEOUT
        try:
            async with asyncio.timeout_at(deadline):
                body = await _read(scope, receive, self._limit_of(scope["path"]))
        except TimeoutError:
            refusal = Refusal(408, "body_too_slow", f"The body did not arrive within {BODY_TIMEOUT:g} seconds.")
            await _close_with(refusal, receive, send, deadline)
            return
        except Refusal as refusal:
            await _close_with(refusal, receive, send, deadline)
            return
        unread = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Message:
            return next(unread, None) or await receive()

        await self._app(scope, replay, send)

    def _limit_of(self, path: str) -> int:
        return next((limit for pattern, limit in self._limits if pattern.match(path)), self._limit)


async def _read(scope: Scope, receive: Receive, limit: int) -> bytes:
    declared = dict(scope["headers"]).get(b"content-length", b"").lstrip(b"0")  # int takes no thousands of digits
    if declared.isdigit() and int(declared) > limit:
        raise _too_long(limit)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":  # nobody hears this, but a part must not pass for the whole
            raise Refusal(400, "incomplete_body", "The connection ended before the body did.")
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_long(limit)
        if not message.get("more_body", False):
            return bytes(body)


def _too_long(limit: int) -> Refusal:
    return Refusal(413, "body_too_long", f"The body is longer than {limit} bytes.")


async def _close_with(refusal: Refusal, receive: Receive, send: Send, deadline: float) -> None:
    """Refuse, and hear the client out until the deadline: one that is still sending when the connection closes sees a
    reset instead of the answer."""
    refusal.headers["Connection"] = "close"
    response = refusal.response()
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    with suppress(TimeoutError):
        async with asyncio.timeout_at(deadline):
            while (await receive()).get("more_body", False):
                pass
    await send({"type": "http.response.body"})
