"""What a check found, and what to do about it."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from m3.errors import Unreached

Mark = Literal["ok", "warning", "wrong", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """``advice`` is a sentence that says what to do, where something is not ok."""

    check: str
    mark: Mark
    found: str
    advice: str = ""


def unreached(check: str, where: str, error: Unreached, advice: str) -> Finding:
    return Finding(check, "wrong", f"{where}: {error}".removesuffix("."), advice)


def shown(url: str) -> str:
    """The URL without its password, and without what may hold one; of what cannot be taken apart only the scheme."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or "@" in parts.path + parts.query + parts.fragment:
        return f"{url.partition('://')[0]}://…" if "://" in url else "…"
    named = parts.username and not parts.scheme.startswith("http")  # where it may be a key
    user = f"{parts.username}@" if named else ""
    return f"{parts.scheme}://{user}{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}{parts.path}"
