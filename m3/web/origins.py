"""Pages of other hosts, which a browser lets speak to the room without asking it."""

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection


def is_foreign(connection: HTTPConnection) -> bool:
    """Whether a page of another host asks. Browsers say so, and without this any page that somebody visits could speak
    in a room on their own machine. The port may differ."""
    origin = connection.headers.get("origin")
    try:
        return origin is not None and urlsplit(origin).hostname != connection.url.hostname
    except ValueError:  # of an origin or host that is no address
        return True
