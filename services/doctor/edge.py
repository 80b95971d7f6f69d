"""The edge, as clients see it: the gateway behind it, and a socket that stays open."""

import asyncio
import json
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import CLOSE_CODE_EXPLANATIONS

from m3.errors import NotSignedIn, Obstacle, Unreached
from m3.settings import Settings
from services.doctor.findings import Finding, shown, unreached

#: The thread that sockets of the doctor are opened in. Nothing is ever said in it.
THREAD = "m3:doctor"
#: Seconds that each step may take.
STEP_TIMEOUT = 5.0
#: Addresses to listen on that are none to go to.
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # as it is set, not listened on here

_ADVICE: Mapping[Obstacle, str] = {
    "url": "Write it as http://host:port or https://host.",
    "name": "Correct the host; between containers the edge is http://nginx:8888, as long as that one runs.",
    "away": "Start the room (`m3 up`, or its gateway, pusher and proxy), or correct the address.",
    "silent": "Look whether the proxy runs and reaches a gateway.",
    "tls": "Have https:// only where the edge speaks TLS, with a certificate that is trusted here.",
}
_OTHERWISE = "Look whether this is the address of the room, and into the proxy's log."
_UPGRADE = (
    "Have the proxy pass /ws/ on to a pusher with HTTP/1.1 and the headers Upgrade and Connection (nginx: "
    "proxy_http_version, proxy_set_header), and look whether a pusher runs."
)
_AUTH = "Have the pushers run with the settings that are told here, or tell the doctor theirs."
_PATIENCE = "Raise what the proxy lets a silent connection live (nginx: proxy_read_timeout) well above PING_INTERVAL."


class _Otherwise(Exception):
    """The socket did not do what it should; the text is what it did."""


def address_of(settings: Settings) -> str | None:
    """Where clients come in: what is set, or what a room in one process listens on; None where it is not known."""
    if settings.edge_url is not None or not settings.broker_url.get_secret_value().startswith("memory:"):
        return settings.edge_url
    host = _ANYWHERE.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}" if settings.port else None


async def edge(address: str | None, hold: float, *, required: bool) -> list[Finding]:
    """``required``: whether the settings say that who comes is asked who they are."""
    if address is None:
        advice = "Set EDGE_URL, or give --url, where clients come in."
        return [Finding("edge", "skipped", "its address is not told", advice)]
    if urlsplit(address).scheme not in {"http", "https"}:
        return [Finding("edge", "wrong", f"{shown(address)} is no web address", _ADVICE["url"])]
    try:
        async with asyncio.timeout(2 * STEP_TIMEOUT):
            found = await _http(address.rstrip("/"))
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
        return [_unreached("edge", address, error), Finding("socket", "skipped", "the edge was not reached")]
    return [found, await _socket(address.rstrip("/"), hold, required=required)]


async def _http(address: str) -> Finding:
    # No proxy of the environment, here and below: what is looked at is the address itself. Trusted is what the system
    # trusts, or SSL_CERT_FILE.
    async with httpx2.AsyncClient(
        base_url=address, timeout=STEP_TIMEOUT, verify=ssl.create_default_context(), trust_env=False
    ) as http:
        health, readiness = await http.get("/healthz"), await http.get("/readyz")
    if health.is_redirect:
        there = shown(health.headers.get("Location", "")).removesuffix("/healthz")
        return Finding("edge", "wrong", f"{shown(address)} sends elsewhere", f"Give the address {there} instead.")
    if health.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR:
        found = f"{shown(address)} has no gateway behind it (status {health.status_code})"
        return Finding("edge", "wrong", found, "Start a gateway, and look into the proxy's log.")
    if _json(health).get("status") != "ok":
        found = f"{shown(address)} is not the room (GET /healthz: status {health.status_code})"
        return Finding("edge", "wrong", found, _OTHERWISE)
    missing = _json(readiness)
    if missing.get("code") == "not_ready":
        found = f"the gateway behind {shown(address)} is not ready ({missing.get('message')})"
        return Finding("edge", "wrong", found, "See to what it misses.")
    return Finding("edge", "ok", f"the gateway behind {shown(address)} is well")


def _unreached(check: str, address: str, error: Exception) -> Finding:
    unhad = Unreached.because_of(error)
    return unreached(check, shown(address), unhad, _ADVICE.get(unhad.obstacle, _OTHERWISE))


def _json(response: httpx2.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


async def _socket(address: str, hold: float, *, required: bool) -> Finding:
    uri = f"{address.replace('http', 'ws', 1)}/ws/chat/{THREAD}"
    try:
        async with asyncio.timeout(hold + 4 * STEP_TIMEOUT):
            # No pings of ours: whether a silent connection lives is the question.
            async with connect(
                uri, proxy=None, open_timeout=STEP_TIMEOUT, close_timeout=1, ping_interval=None
            ) as connection:
                if required:
                    return Finding("socket", "wrong", "it opens for whoever comes, though AUTH is required", _AUTH)
                return await _converse(connection, hold)
    except InvalidStatus as error:
        return _refused(error.response.status_code, bytes(error.response.body), required=required)
    except WebSocketException:
        return Finding("socket", "wrong", "the edge does not speak WebSocket", _UPGRADE)
    except _Otherwise as error:
        return Finding("socket", "wrong", str(error), _UPGRADE)
    except (OSError, TimeoutError) as error:
        return _unreached("socket", address, error)


async def _converse(connection: ClientConnection, hold: float) -> Finding:
    now = asyncio.get_running_loop().time
    opened = now()
    try:
        if await _next(connection) != "connected":
            raise _Otherwise("it opens, and is not told so")
        with suppress(TimeoutError):  # nothing comes while it is held
            async with asyncio.timeout(hold):
                await connection.recv()
        asked = now()
        await connection.send("ping")
        while (heard := await _next(connection)) != "pong":
            if now() > asked + STEP_TIMEOUT:
                raise _Otherwise(f"a ping is answered with {heard}")
        return Finding("socket", "ok", f"open for {hold:g} s, and answers in {(now() - asked) * 1000:.0f} ms")
    except ConnectionClosed as error:
        if error.rcvd is not None:  # the room's own word
            reason = error.rcvd.reason.removesuffix(".") or CLOSE_CODE_EXPLANATIONS.get(
                error.rcvd.code, "it says not why"
            )
            found = f"the pusher closes it: {reason} ({error.rcvd.code})"
            return Finding("socket", "wrong", found, "Look into the pusher's log, and at the limits of sockets.")
        return Finding("socket", "wrong", f"it was cut off after {now() - opened:.1f} s of silence", _PATIENCE)


async def _next(connection: ClientConnection) -> str:
    """The type of the next frame."""
    try:
        async with asyncio.timeout(STEP_TIMEOUT):
            return str(json.loads(await connection.recv())["type"])
    except TimeoutError:
        raise _Otherwise("it opens, and then nothing gets through") from None
    except (ValueError, LookupError, TypeError):
        raise _Otherwise("it opens, and somebody else speaks there") from None


def _refused(status: int, body: bytes, *, required: bool) -> Finding:
    try:
        told = json.loads(body)
        code, said = told.get("code"), told["message"]
    except (ValueError, LookupError, TypeError, AttributeError):
        code, said = None, ""
    if code == NotSignedIn.code and not required:
        return Finding("socket", "warning", "it asks who comes, though AUTH is open by the settings told here", _AUTH)
    if code == NotSignedIn.code:
        return Finding("socket", "ok", "it asks who comes, and so was not opened: how long it stays open was not seen")
    found = f"it is not opened: status {status}" + (f" ({str(said).removesuffix('.')})" if said else "")
    return Finding("socket", "wrong", found, _UPGRADE)
