"""What every answer tells browsers, and which pages are answered."""

from collections.abc import Awaitable, Iterator

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from m3 import metrics
from m3.access.limits import Allowance
from m3.addresses import ASKED_FROM
from m3.settings import LOOPBACK, Settings
from m3.web.errors import Refusal
from m3.web.origins import ALLOWED, NOT_OF_ORIGINS, names_this_machine, parse_origins
from m3.web.rates import rate_headers

#: Of every answer that has no other of its own: it is what it says it is, is shown in no page and shares nothing with
#: any, loads nothing, and nobody is told where somebody came from.
SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
#: What is said in the room stays in no cache.
_OF_THE_API = (*SAFE_HEADERS, (b"cache-control", b"no-store"))

#: What pages of ORIGINS may send, and read of an answer, beside what any page may.
_SENT = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "M3-Client",
    "Last-Event-ID",
    "Prefer",
    "traceparent",
)
_READ = ("Location", "Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")

#: Where a scope has what the answer is to say of a limit.
_ALLOWANCE = "m3.allowance"


def tell_allowance(scope: Scope, allowance: Allowance | None) -> None:
    """Have the answer to this request say what is left of the limit that it was counted under, if there is one."""
    scope[_ALLOWANCE] = allowance


class ForBrowsers:
    """To be put around the whole app, so that errors that nobody caught are told so too. Raises StartError for a wrong
    ORIGINS."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._origins = parse_origins(settings.origins)
        self._app = _Cors(app, self._origins) if self._origins else app
        self._this_machine_only = (
            settings.host in LOOPBACK and not settings.auth_required and not settings.auth_open_anywhere
        )

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """No coroutine of its own, which each open socket would keep for as long as it lives."""
        scope[ALLOWED] = self._origins
        ASKED_FROM.set(scope["client"][0] if scope.get("client") else "")
        app = self._app if not self._this_machine_only or names_this_machine(scope) else _wrong_host
        return app(scope, receive, _safely(scope, send) if scope["type"] == "http" else send)


def _safely(scope: Scope, send: Send) -> Send:
    headers = _OF_THE_API if scope["path"].startswith("/api/") else SAFE_HEADERS

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = message.get("headers", ())
            names = {name for name, _ in own}
            added = (*headers, *_of_the_limit(scope))
            message["headers"] = [*own, *(header for header in added if header[0] not in names)]
        await send(message)

    return answer


def _of_the_limit(scope: Scope) -> Iterator[tuple[bytes, bytes]]:
    if (allowance := scope.get(_ALLOWANCE)) is not None:
        for name, value in rate_headers(allowance).items():
            yield name.lower().encode(), value.encode()


async def _wrong_host(scope: Scope, receive: Receive, send: Send) -> None:
    """For requests and sockets alike."""
    metrics.REFUSALS.labels("wrong_host").inc()
    refusal = Refusal(
        421,
        "wrong_host",
        "This room asks nobody who they are, and so answers only as localhost, 127.0.0.1 or [::1]; "
        "with AUTH=required it answers to other names.",
    )
    await refusal.response()(scope, receive, send)


class _Cors(CORSMiddleware):
    """For pages of ORIGINS. They bring their credentials with each request: a browser adds none."""

    def __init__(self, app: ASGIApp, origins: frozenset[str]) -> None:
        super().__init__(
            app, allow_origins=origins, allow_methods=_METHODS, allow_headers=_SENT, expose_headers=_READ, max_age=600
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == 200:  # noqa: PLR2004 - OK
            return response
        why = bytes(response.body).decode()
        advice = f" {NOT_OF_ORIGINS}" if "origin" in why else ""
        refusal = Refusal(403, "foreign_origin", f"A page of another host or port may not do this: {why}.{advice}")
        refusal.headers["Vary"] = response.headers["Vary"]
        return refusal.response()
