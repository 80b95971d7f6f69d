"""A model's server that costs little: it streams one fixed reply to whatever it is asked, and counts.

``python -m bench.model SECONDS PIECES`` is one in a process of its own, which listens until its stdin ends.
"""

import asyncio
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2
import uvloop

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Count:
    """What a model's server was asked, by the key of the agent that asked."""

    #: Replies said to the end.
    said: Counter[str] = field(default_factory=Counter)
    #: Replies whose reader went away in the middle.
    broken_off: Counter[str] = field(default_factory=Counter)
    #: The last message of each conversation that is being answered.
    open: dict[str, list[str]] = field(default_factory=dict)
    #: Seconds that the replies took in all.
    seconds: float = 0.0


class Model:
    """The smallest OpenAI-compatible server.

    Its reply has so many pieces, the last of them after so many seconds and the others evenly before; in 0 seconds it
    is written at once. With ``at_once`` the first piece does not wait for its time.
    """

    def __init__(self, seconds: float = 0.0, pieces: int = 1, *, at_once: bool = False) -> None:
        self.count = Count()
        self._times = [seconds * (number + 1) / pieces for number in range(pieces)]
        if at_once:
            self._times[0] = 0.0
        self._piece = _chunk(_delta({"content": "Yes. "}, None))
        usage = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "bench", "choices": []}
        usage["usage"] = {"prompt_tokens": 100, "completion_tokens": 2 * pieces, "total_tokens": 100 + 2 * pieces}
        self._end = _chunk(_delta({}, "stop") + _data(json.dumps(usage)) + _data("[DONE]")) + b"0\r\n\r\n"
        self._to_first = self._to_end = 0.0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Yields what LLM_BASE_URL is to be."""
        async with await asyncio.start_server(self._converse, "127.0.0.1", 0) as server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"

    def own_time(self) -> tuple[float, float]:
        """From having a request to having written its first piece, and the whole reply: seconds of each, summed since
        this was last asked."""
        times = self._to_first, self._to_end
        self._to_first = self._to_end = 0.0
        return times

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    self._tell_count(writer)
                    continue
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                assert length, head
                await self._reply(head, await reader.readexactly(int(length[1])), reader, writer)

    async def _reply(
        self, head: bytes, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        begun = time.perf_counter()
        found = re.search(rb"(?i)authorization: *bearer (\S+)", head)
        key = found[1].decode() if found else ""
        asked: str = json.loads(body)["messages"][-1]["content"]
        open_now = self.count.open.setdefault(key, [])
        open_now.append(asked)
        try:
            writer.write(HEAD)
            for number, due in enumerate(self._times):
                if (pause := begun + due - time.perf_counter()) > 0:
                    await asyncio.sleep(pause)
                if reader.at_eof() or writer.is_closing():
                    self.count.broken_off[key] += 1
                    raise ConnectionResetError
                writer.write(self._piece)
                if number == 0:
                    self._to_first += time.perf_counter() - begun
            writer.write(self._end)
            took = time.perf_counter() - begun
            self._to_end += took
            self.count.seconds += took
            self.count.said[key] += 1
        finally:
            open_now.remove(asked)

    def _tell_count(self, writer: asyncio.StreamWriter) -> None:
        body = json.dumps(vars(self.count)).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)


@dataclass
class ModelProcess:
    """A model's server in a process of its own."""

    url: str
    pid: int

    async def count(self) -> Count:
        async with httpx2.AsyncClient() as http:
            told: dict[str, Any] = (await http.get(f"{self.url}/count")).json()
        return Count(Counter(told["said"]), Counter(told["broken_off"]), told["open"], told["seconds"])


@contextmanager
def model_process(seconds: float, pieces: int) -> Iterator[ModelProcess]:
    command = [sys.executable, "-m", "bench.model", str(seconds), str(pieces)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        yield ModelProcess(process.stdout.readline().strip(), process.pid)
        process.stdin.close()


def _delta(delta: dict[str, str], finish_reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "bench", "choices": [choice]}
    return _data(json.dumps(chunk))


def _data(text: str) -> bytes:
    return f"data: {text}\n\n".encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _listen(seconds: float, pieces: int) -> None:
    async with Model(seconds, pieces).listening() as url:
        print(url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_listen(float(sys.argv[1]), int(sys.argv[2])))
