"""``python -m bench.predecessor PORT FOLDER``: the predecessor's design, to measure this room against.

Written afresh from what its report tells: one process; a database connection and a commit for each message, within the
request; for each thread a list of sockets, each sent its own JSON after the one before has taken it. There is no model:
a message is recorded, sent to the sockets and answered at once. No request is logged, which spares it a line each.
"""

import socket
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Query, WebSocket, WebSocketDisconnect
from pydantic import BaseModel

#: Seconds that the process may take to stop with its sockets open.
GRACE = 5

TABLE = """
CREATE TABLE IF NOT EXISTS dialogue (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    thread_id TEXT, role TEXT, content TEXT, source TEXT, timestamp TEXT, interface TEXT
)
"""
INSERT = "INSERT INTO dialogue (thread_id, role, content, source, timestamp, interface) VALUES (?, ?, ?, ?, ?, ?)"
HISTORY = "SELECT id, content, source, timestamp FROM dialogue WHERE thread_id = ? ORDER BY timestamp DESC LIMIT ?"
COUNT = "SELECT count(*) FROM dialogue WHERE timestamp >= ? AND timestamp < ?"


class Said(BaseModel):
    message: str
    thread_id: str = "default"
    source: str = "user"


class Sockets:
    """The open sockets of each thread."""

    def __init__(self) -> None:
        self._of: defaultdict[str, list[WebSocket]] = defaultdict(list)

    async def attend(self, websocket: WebSocket, thread_id: str) -> None:
        """Keep the socket until it goes."""
        await websocket.accept()
        self._of[thread_id].append(websocket)
        try:
            count = len(self._of[thread_id])
            await websocket.send_json({"type": "connected", "thread_id": thread_id, "connections": count})
            while True:
                if await websocket.receive_text() == "ping":
                    await websocket.send_json({"type": "pong", "timestamp": time.time()})
        finally:
            self._drop(websocket, thread_id)

    async def broadcast(self, said: Said) -> None:
        message = {
            "type": "new_message",
            "thread_id": said.thread_id,
            "role": "user",
            "content": said.message,
            "source": said.source,
            "timestamp": time.time(),
        }
        for websocket in self._of[said.thread_id].copy():
            try:
                await websocket.send_json(message)
            except (RuntimeError, WebSocketDisconnect):
                self._drop(websocket, said.thread_id)

    def _drop(self, websocket: WebSocket, thread_id: str) -> None:
        with suppress(ValueError):  # dropped before, by whoever could not send to it
            self._of[thread_id].remove(websocket)


def app(database: Path) -> FastAPI:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(TABLE)
    room = FastAPI()
    sockets = Sockets()

    @room.post("/api/chat")
    async def chat(said: Said) -> dict[str, str]:
        row = (said.thread_id, "user", said.message, said.source, _timestamp(time.time()), "http_api")
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(INSERT, row)
        await sockets.broadcast(said)
        return {"response": "", "thread_id": said.thread_id}

    @room.post("/burst")
    async def burst(said: Said, count: Annotated[int, Query(ge=1)]) -> dict[str, int]:
        """Send the same message so many times, past the database; answered when the last socket was sent the last."""
        for _ in range(count):
            await sockets.broadcast(said)
        return {"count": count}

    @room.get("/api/threads/{thread_id}/history")
    async def history(thread_id: str, limit: int = 100) -> dict[str, Any]:
        with closing(sqlite3.connect(database)) as connection:
            rows = connection.execute(HISTORY, (thread_id, limit)).fetchall()
        messages = [dict(zip(("id", "content", "source", "timestamp"), row, strict=True)) for row in reversed(rows)]
        return {"thread_id": thread_id, "messages": messages}

    @room.websocket("/ws/chat/{thread_id}")
    async def listen(websocket: WebSocket, thread_id: str) -> None:
        with suppress(WebSocketDisconnect):
            await sockets.attend(websocket, thread_id)

    return room


@dataclass
class Predecessor:
    """A running one."""

    address: str
    database: Path
    pid: int

    def count(self, since: float, until: float) -> int:
        """Messages that it recorded between two times of ``time.time()``."""
        between = [_timestamp(when) for when in (since, until)]
        with closing(sqlite3.connect(self.database)) as connection:
            ((count,),) = connection.execute(COUNT, between)
            return int(count)


@contextmanager
def predecessor(folder: Path) -> Iterator[Predecessor]:
    """One in a process of its own, with its table in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "bench.predecessor", "0", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield Predecessor(process.stdout.readline().strip(), _database(folder), process.pid)
        finally:
            process.terminate()
            try:
                process.wait(2 * GRACE)
            except subprocess.TimeoutExpired:
                process.kill()


def _timestamp(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="microseconds")


def _database(folder: Path) -> Path:
    return folder / "memory_buffer.db"


def _serve(port: int, folder: Path) -> None:
    config = uvicorn.Config(app(_database(folder)), log_level="warning", timeout_graceful_shutdown=GRACE)
    with socket.create_server(("127.0.0.1", port), backlog=2048) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]))
