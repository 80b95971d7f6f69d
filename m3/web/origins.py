"""Pages, by the origin that a browser says they are of: it lets them speak to the room without asking it."""

import re
from ipaddress import AddressValueError, IPv6Address

from starlette.requests import HTTPConnection
from starlette.types import Scope

from m3 import metrics
from m3.errors import StartError

#: Where a scope has the origins that the room is told to answer beside its own host.
ALLOWED = "m3.origins"
#: What a page from elsewhere is told, or rather whoever looks at it.
NOT_OF_ORIGINS = "Its address must be in ORIGINS."

_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.IGNORECASE | re.ASCII
)
_LOOPBACK = re.compile(rb"(?i)(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?")


def parse_origins(text: str) -> frozenset[str]:
    """What ORIGINS names, as browsers write it. Raises StartError."""
    return frozenset(_written(part.strip()) for part in text.split(",")) if text.strip() else frozenset()


def _written(text: str) -> str:
    """In lower case, and without the port that goes without saying."""
    parts = _ORIGIN.fullmatch(text)
    scheme = parts[1].lower() if parts else ""
    if parts is None or scheme not in _PORTS:
        raise _no_origin(text)
    host, port = parts[2].lower(), int(parts[3] or _PORTS[scheme])
    if host.startswith("["):
        try:
            host = f"[{IPv6Address(host[1:-1])}]"
        except AddressValueError:
            raise _no_origin(text) from None
    if not 0 < port <= 65_535:  # noqa: PLR2004 - the ports that there are
        raise _no_origin(text)
    return f"{scheme}://{host}" + ("" if port == _PORTS[scheme] else f":{port}")


def _no_origin(text: str) -> StartError:
    return StartError(
        f"ORIGINS: {text!r} is not where a page comes from. Write each as https://app.example.com: with a port if that "
        "is not the usual one, nothing behind it, and a name in other letters as xn--…."
    )


def is_foreign(connection: HTTPConnection) -> bool:
    """Whether a page of another host or port asks, which is none of ORIGINS. Browsers say so, and without this any page
    that somebody visits could speak in a room on their own machine. It counts as a refusal."""
    origins = connection.headers.getlist("origin")
    foreign = bool(origins) and not (len(origins) == 1 and _is_known(origins[0], connection))
    if foreign:
        metrics.REFUSALS.labels("foreign_origin").inc()
    return foreign


def _is_known(origin: str, connection: HTTPConnection) -> bool:
    scheme = origin.partition(":")[0].lower()
    if scheme not in _PORTS:  # as `null`, which is of a page that has no host
        return False
    own = _place(origin)
    # Of the page's own scheme: behind a proxy that speaks TLS nothing that is sure to come through tells ours.
    asked = _place(f"{scheme}://{connection.headers.get('host', '')}")
    return (own is not None and own == asked) or origin in connection.scope.get(ALLOWED, ())


def _place(address: str) -> tuple[str, int] | None:
    """Its host and port."""
    parts = _ORIGIN.fullmatch(address)
    return None if parts is None else (parts[2].lower(), int(parts[3] or _PORTS[parts[1].lower()]))


def names_this_machine(scope: Scope) -> bool:
    """Whether the request is for a name that means the machine itself to everybody. A name that its owner points at
    this machine after its page was loaded is not, and its page would pass for one of the room's."""
    return all(_LOOPBACK.fullmatch(value) for name, value in scope["headers"] if name == b"host")
