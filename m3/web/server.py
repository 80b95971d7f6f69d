"""A uvicorn server for as long as a block."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from m3.errors import StartError
from m3.tasks import background
from m3.web.protocols import AnsweringSockets, BoundedHttp

#: Longest WebSocket frame taken from a client, in bytes.
MAX_FRAME = 64 * 1024
#: Seconds between the server's pings of a socket, and until one without an answer is closed. Below the 60 s after
#: which proxies close what is silent.
PING_INTERVAL = 25.0
#: Seconds in which a server must listen.
START_TIMEOUT = 10.0


class _Server(uvicorn.Server):
    """Leaves signals to the process, which may run more than a server."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """A socket to serve on, which does not listen yet. Raises StartError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as on_error:
        try:
            sock = on_error.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error).rstrip(".")
            raise StartError(f"Cannot listen on {host} port {port}: {reason}. Set HOST or PORT.") from error
        on_error.pop_all()
    return sock


@asynccontextmanager
async def serve(app: ASGIApp, sock: socket.socket, *, grace: int) -> AsyncIterator[str]:
    """Serve the app on the socket inside the block; yields its address. Leaving ends requests within ``grace`` s."""
    config = uvicorn.Config(
        app,
        http=BoundedHttp,
        ws=AnsweringSockets,
        ws_max_size=MAX_FRAME,
        ws_ping_interval=PING_INTERVAL,
        ws_ping_timeout=PING_INTERVAL,
        ws_per_message_deflate=False,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=grace,
    )
    server = _Server(config)
    host, port = sock.getsockname()[:2]

    def stop() -> None:
        server.should_exit = True

    async with background(f"http {port}", server.serve(sockets=[sock]), stop=stop):
        async with asyncio.timeout(START_TIMEOUT):
            while not server.started:  # noqa: ASYNC110  # uvicorn has no event to wait for
                await asyncio.sleep(0.005)
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
