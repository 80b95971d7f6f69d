"""A uvicorn server for as long as a block."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from m3 import metrics
from m3.errors import StartError
from m3.settings import Settings
from m3.tasks import background
from m3.web.browsers import ForBrowsers
from m3.web.protocols import BoundedHttp, RoomSockets

#: Seconds in which a server must listen.
START_TIMEOUT = 10.0
#: The part of the grace after which requests that still wait are to be answered with what is known.
PATIENCE = 0.8


class _Server(uvicorn.Server):
    """Leaves signals to the process, which may run more than a server, and does not wake ten times a second to look
    whether it is to stop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True
        self._stopped.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        while not self.should_exit:
            await self.on_tick(0)  # which makes the second's Date header
            due = asyncio.get_running_loop().time() + 1
            try:
                async with asyncio.timeout_at(due):
                    await self._stopped.wait()
            except TimeoutError:
                metrics.LOOP_LAG.observe(asyncio.get_running_loop().time() - due)


def bind(host: str, port: int) -> socket.socket:
    """A socket to serve on, which does not listen yet. Raises StartError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as on_error:
        try:
            # With its protocol, or asyncio's own loop leaves Nagle's algorithm on, and each answer's body waits 40 ms.
            sock = on_error.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error).rstrip(".")
            raise StartError(f"Cannot listen on {host} port {port}: {reason}. Set HOST or PORT.") from error
        on_error.pop_all()
    return sock


@asynccontextmanager
async def serve(
    app: ASGIApp,
    sock: socket.socket,
    settings: Settings,
    *,
    grace: float,
    hurry: Callable[[], None] = lambda: None,
) -> AsyncIterator[str]:
    """Serve the app on the socket inside the block; yields its address. Raises StartError for a wrong ORIGINS.

    Leaving takes no new connection or request, closes sockets, and ends what runs within ``grace`` seconds; a while
    before they are over it calls ``hurry``, upon which requests that wait should be answered.
    """
    config = uvicorn.Config(
        ForBrowsers(app, settings),
        interface="asgi3",
        http=BoundedHttp,
        ws=RoomSockets,
        ws_max_size=settings.frame_limit,
        ws_ping_interval=settings.ping_interval,
        ws_ping_timeout=settings.ping_interval,
        ws_per_message_deflate=False,
        lifespan="off",
        reset_contextvars=True,  # or a request would begin with the context of the one before it on its connection
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=grace,  # type: ignore[arg-type]  # it hands it to asyncio.wait_for
    )
    server = _Server(config)
    loop = asyncio.get_running_loop()
    late: list[asyncio.TimerHandle] = []
    host, port = sock.getsockname()[:2]

    def stop() -> None:
        server.stop()
        late.append(loop.call_later(PATIENCE * grace, hurry))

    try:
        async with background(f"http {port}", server.serve(sockets=[sock]), stop=stop):
            async with asyncio.timeout(START_TIMEOUT):
                while not server.started:  # noqa: ASYNC110  # uvicorn has no event to wait for
                    await asyncio.sleep(0.005)
            yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        for handle in late:
            handle.cancel()
        for listening in server.servers:  # which a server that was broken off did not close
            listening.close()
