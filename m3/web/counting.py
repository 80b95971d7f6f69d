"""Requests, counted by their route: the paths themselves are without number."""

from functools import cache
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from m3 import metrics

#: What comes to no route, because there is none or it was refused before, and methods that somebody made up.
UNKNOWN = "unknown"
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

_requests = cache(metrics.HTTP_REQUESTS.labels)
_seconds = cache(metrics.HTTP_SECONDS.labels)


class CountedRequests:
    """Counts what the app answers; to be added last, so that it is around all else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        status = 500  # of an error that nobody caught, which is answered further out, and of what is broken off

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            route, method = _route(scope), scope["method"] if scope["method"] in _METHODS else UNKNOWN
            _requests(route, method, str(status)).inc()
            _seconds(route, method).observe(perf_counter() - began)


def _route(scope: Scope) -> str:
    """The path as the route writes it; of a mounted app the path that it is mounted at."""
    return getattr(scope.get("route"), "path", None) or scope["root_path"] or UNKNOWN
