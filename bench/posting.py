"""A client of HTTP that costs little: by hand, since a library would take more of the machine than the room does."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from urllib.parse import urlsplit

#: Seconds that an answer may take.
TIMEOUT = 30.0


class Line:
    """One connection, kept open, for one request after the other."""

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host = host
        self._reader = reader
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def open(cls, address: str) -> AsyncIterator["Line"]:
        parts = urlsplit(address)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        with closing(writer):
            yield cls(parts.netloc, reader, writer)

    async def post(self, thread_id: str, message: str) -> None:
        """Say something as a person, and wait until it is recorded. Raises ConnectionError where it is not."""
        said = json.dumps({"message": message, "thread_id": thread_id, "source": "user"})
        await self._post("/api/chat", "application/json", said)

    async def post_batch(self, thread_id: str, messages: Iterable[str]) -> None:
        """As ``post``, all in one request."""
        said = "\n".join(json.dumps({"message": message, "source": "user"}) for message in messages)
        await self._post(f"/api/threads/{thread_id}/messages", "application/x-ndjson", said)

    async def get(self, path: str, token: str | None = None) -> bytes:
        """The body of the answer. Raises ConnectionError where it is another than 200."""
        shown = f"Authorization: Bearer {token}\r\n" if token else ""
        return await self._ask(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n{shown}\r\n", status="200")

    async def _post(self, path: str, content_type: str, body: str) -> None:
        request = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: {content_type}\r\n"
            f"Prefer: respond-async\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        await self._ask(request, status="202")

    async def _ask(self, request: str, *, status: str) -> bytes:
        self._writer.write(request.encode())
        async with asyncio.timeout(TIMEOUT):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"(?i)content-length: *(\d+)", head)
            assert length, head
            answer = await self._reader.readexactly(int(length[1]))
        if head.split()[1] != status:
            raise ConnectionError(f"{head.splitlines()[0]}: {answer.decode()}")
        return answer
