"""``GET /``: the page, and what it loads. ``make page`` builds them from ``web/`` into the folder ``page`` beside this,
which is read once, at the start, so no path leads out of it.
"""

import gzip
import re
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, Request, Response

from m3.web import Refusal

PAGE = Path(__file__).with_name("page")

#: The page runs what it was built of, shows its own pictures, and asks its own host and port alone. Text becomes
#: elements only through DOMPurify.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)
#: Asked for anew each time, since it names what else there is.
_OF_THE_PAGE = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
#: A file has the hash of what is in it in its name.
_OF_A_FILE = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}

#: What a file is, by how its name ends; all are text, and no other is served.
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class _File:
    kind: str
    content: bytes

    @cached_property
    def zipped(self) -> bytes:
        """Made when it is first asked for, which blocks for some milliseconds."""
        return gzip.compress(self.content, mtime=0)


def front(folder: Path) -> APIRouter:
    """``folder``: ``index.html`` and ``assets/``."""
    router = APIRouter(include_in_schema=False)
    index = folder / "index.html"
    page = index.read_bytes() if index.is_file() else None
    tag = f'"{sha256(page or b"").hexdigest()[:32]}"'
    files = {
        path.relative_to(folder / "assets").as_posix(): _File(_KINDS[path.suffix], path.read_bytes())
        for path in (folder / "assets").rglob("*")
        if path.is_file() and path.suffix in _KINDS
    }

    @router.api_route("/", methods=["GET", "HEAD"])
    async def show(request: Request) -> Response:
        if page is None:
            raise Refusal(404, "no_page", "The page was not built; `make page` does it, and wheels and images have it.")
        headers = {**_OF_THE_PAGE, "ETag": tag}  # also with a 304, whose headers take the place of those that are kept
        if tag in _tags(request):
            return Response(status_code=304, headers=headers)
        return Response(page, headers=headers, media_type="text/html")

    @router.api_route("/assets/{path:path}", methods=["GET", "HEAD"])
    async def load(path: str, request: Request) -> Response:
        file = files.get(path)
        if file is None:
            raise Refusal(404, "not_found", "Not Found.")
        if _takes_gzip(request):
            return Response(file.zipped, headers=_OF_A_FILE | {"Content-Encoding": "gzip"}, media_type=file.kind)
        return Response(file.content, headers=_OF_A_FILE, media_type=file.kind)

    return router


def _tags(request: Request) -> set[str]:
    """What the browser has. A proxy may have marked a tag as weak."""
    given = ",".join(request.headers.getlist("if-none-match"))
    return {tag.strip().removeprefix("W/") for tag in given.split(",")}


def _takes_gzip(request: Request) -> bool:
    given = ",".join(request.headers.getlist("accept-encoding")).lower()
    return any(
        coding.strip() == "gzip" and not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight)
        for coding, _, weight in (one.partition(";") for one in given.split(","))
    )
