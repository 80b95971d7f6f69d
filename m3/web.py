"""What every service that speaks HTTP has in common: its errors, its health, its server, and bounded bodies."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from http import HTTPStatus
from typing import Any
from uuid import UUID

import structlog
import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request as Handshake
from websockets.server import ServerProtocol

from m3.bus import Bus
from m3.errors import BusError, M3Error, StartError, StoreError, StoreUnavailable
from m3.store import Store
from m3.tasks import background

#: Longest head of a request, which is its first line and its headers, in bytes.
MAX_HEAD = 64 * 1024
#: Longest request body, in bytes.
MAX_BODY = 64 * 1024
#: Seconds in which a request's body must arrive.
BODY_TIMEOUT = 10.0
#: Longest WebSocket frame taken from a client, in bytes.
MAX_FRAME = 64 * 1024
#: Seconds between the server's pings of a socket, and until one without an answer is closed. Below the 60 s after
#: which proxies close what is silent.
PING_INTERVAL = 25.0
#: Seconds in which a server must listen.
START_TIMEOUT = 10.0
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
        self.status = status
        self.body = ErrorBody(code=code, message=message, message_id=message_id)
        self.headers = {"Retry-After": str(RETRY_AFTER)} if retry else {}

    def response(self) -> JSONResponse:
        content = self.body.model_dump(mode="json", exclude_none=True)
        return JSONResponse(content, self.status, self.headers)


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

    def refuse(make: Callable[[Any], Refusal]) -> Callable[[Request, Exception], JSONResponse]:
        return lambda _, error: make(error).response()

    app.add_exception_handler(Refusal, refuse(lambda refusal: refusal))
    app.add_exception_handler(RequestValidationError, refuse(_invalid))
    app.add_exception_handler(HTTPException, refuse(_http))
    app.add_exception_handler(BusError, refuse(_bus_away))
    app.add_exception_handler(StoreError, refuse(_store_away))
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


def not_json() -> Refusal:
    return Refusal(400, "malformed_body", "The body is not JSON.")


def _bus_away(error: BusError) -> Refusal:
    log.warning("broker refused", reason=str(error))
    return Refusal(503, "broker_unavailable", "The message could not be handed on; try again.", retry=True)


def _store_away(error: StoreError) -> Refusal:
    log.warning("database refused", reason=str(error))
    return Refusal(503, "database_unavailable", "The database is away; try again.", retry=True)


def _unexpected(_: Exception) -> Refusal:
    return Refusal(500, "internal_error", "Something went wrong here; the server's log says what.")


def problem_sentence(problems: Any) -> str:
    """The first of pydantic's problems as a sentence. It does not repeat the input, which may be anything."""
    problem = problems[0]
    where = ".".join(str(part) for part in problem["loc"] if part != "body")
    what = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {what}." if where else f"{what}."


def health(bus: Bus, store: Store) -> APIRouter:
    """``/healthz``: the process runs. ``/readyz``: it also reaches what it needs."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Whether the process runs")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get(
        "/readyz",
        summary="Whether the process reaches what it needs",
        responses=documented((503, "not_ready", "Missing: broker, database.")),
    )
    async def readyz() -> dict[str, str]:
        missing = [] if bus.connected else ["broker"]
        try:
            await store.ping()
        except StoreUnavailable:
            missing.append("database")
        if missing:
            raise Refusal(503, "not_ready", f"Missing: {', '.join(missing)}.", retry=True)
        return {"status": "ready"}

    return router


class BoundedBody:
    """Reads a request's whole body before the app sees it, within a bound and a deadline.

    FastAPI's own ``max_body_size`` knows no deadline, and refuses with plain text where no body was expected.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + BODY_TIMEOUT
        try:
            async with asyncio.timeout_at(deadline):
                body = await _read(scope, receive)
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


async def _read(scope: Scope, receive: Receive) -> bytes:
    too_long = Refusal(413, "body_too_long", f"The body is longer than {MAX_BODY} bytes.")
    declared = dict(scope["headers"]).get(b"content-length", b"").lstrip(b"0")  # int takes no thousands of digits
    if declared.isdigit() and int(declared) > MAX_BODY:
        raise too_long
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":  # nobody hears this, but a part must not pass for the whole
            raise Refusal(400, "incomplete_body", "The connection ended before the body did.")
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise too_long
        if not message.get("more_body", False):
            return bytes(body)


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


class _Http(HttpToolsProtocol):
    """Bounds the head of a request, and gives what is no request an answer in the one shape. uvicorn does neither."""

    _held = 0  # bytes that the parser took since it last gave something: an unfinished head, or what follows a body

    def data_received(self, data: bytes) -> None:
        self._held += len(data)
        super().data_received(data)
        if self._held > MAX_HEAD:
            _refuse(self.transport, _head_too_long())

    def on_body(self, body: bytes) -> None:
        self._held = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        self._held = 0
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD:
            _refuse(self.transport, _head_too_long())
            raise ValueError("head too long")  # ends the parsing
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        _refuse(self.transport, Refusal(400, "malformed_request", msg))


def _head_too_long() -> Refusal:
    return Refusal(431, "head_too_long", f"The request's head is longer than {MAX_HEAD} bytes.")


class _Sockets(WebSocketsSansIOProtocol):
    """Answers every handshake that fails, and in the one shape. uvicorn leaves some without an answer."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated:  # its whole head was in the data, and could not be parsed
            _refuse(self.transport, Refusal(400, "bad_handshake", "This is not a WebSocket handshake."))

    def handle_connect(self, event: Handshake) -> None:
        response = ServerProtocol().accept(event)
        if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            super().handle_connect(event)
        else:
            _refuse(self.transport, Refusal(response.status_code, "bad_handshake", response.body.decode().strip()))

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # otherwise uvicorn logs an error for every refusal


def _refuse(transport: asyncio.Transport, refusal: Refusal) -> None:
    """Answer where no app does."""
    if transport.is_closing():  # it has its answer
        return
    refusal.headers["Connection"] = "close"
    response = refusal.response()
    head = [f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}".encode()]
    head += [name + b": " + value for name, value in response.raw_headers]
    transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
    transport.close()


class _Server(uvicorn.Server):
    """Leaves signals to the process, which may run more than a server."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """A socket to serve on, which does not listen yet. Raises StartError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except (OSError, OverflowError) as error:
        sock.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StartError(f"Cannot listen on {host} port {port}: {reason}. Set HOST or PORT.") from error
    return sock


@asynccontextmanager
async def serve(app: ASGIApp, sock: socket.socket, *, grace: float) -> AsyncIterator[str]:
    """Serve the app on the socket inside the block; yields its address. Leaving ends requests within ``grace`` s."""
    config = uvicorn.Config(
        app,
        http=_Http,
        ws=_Sockets,
        ws_max_size=MAX_FRAME,
        ws_ping_interval=PING_INTERVAL,
        ws_ping_timeout=PING_INTERVAL,
        ws_per_message_deflate=False,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=max(1, int(grace)),
    )
    server = _Server(config)
    host, port = sock.getsockname()[:2]

    def stop() -> None:
        server.should_exit = True

    async with background(f"http {port}", server.serve(sockets=[sock]), stop=stop):
        async with asyncio.timeout(START_TIMEOUT):
            while not server.started:
                await asyncio.sleep(0.005)
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
