"""``m3 up``: the whole room in one process, as a new user runs it."""

import os
import re
import signal
import socket as sockets
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import asyncpg
import httpx2
import pytest

from tests.support.client import client, history, post, socket
from tests.support.processes import Process
from tests.support.until import until

Start = Callable[..., Process]


async def test_the_predecessors_curl_examples_work_as_they_stand(start: Start) -> None:
    """Its §2.1.2, §2.1.5 and §4, on one port for HTTP and WebSockets."""
    async with client(start("up").address()) as http:
        for example in (
            '{"message": "你好", "thread_id": "default", "source": "user"}',
            '{"message": "主播你好", "thread_id": "default", "source": "api"}',
        ):
            answer = await http.post("/api/chat", content=example, headers={"Content-Type": "application/json"})
            assert answer.status_code == 200
            assert answer.json()["thread_id"] == "default"
            assert isinstance(answer.json()["response"], str)

        answer = await http.get("/api/threads/default/history?limit=10")
        assert answer.json()["thread_id"] == "default"
        messages = answer.json()["messages"]
        assert [message["source"] for message in messages] == ["user", "assistant", "api", "assistant"]
        assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant"]
        assert messages[0]["content"] == "你好"
        for message in messages:
            assert isinstance(message["id"], int)
            assert datetime.fromisoformat(message["timestamp"])
            assert message["interface"] == "http_api"
        assert [m["id"] for m in (await http.get("/api/threads/default/history?limit=2")).json()["messages"]] == [
            messages[2]["id"],
            messages[3]["id"],
        ]


async def test_the_predecessors_socket_works_as_it_did(start: Start) -> None:
    address = start("up").address()
    async with client(address) as http, socket(address, "default") as one, socket(address, "other") as foreign:
        assert await one.next() == {
            "type": "connected",
            "thread_id": "default",
            "message": "Connected to thread default",
            "connections": 1,
            "head": 0,
        }
        async with socket(address, "default") as other:
            assert (await other.next())["connections"] == 2

            await one.send("ping")
            pong = await one.next()
            assert pong["type"] == "pong"
            assert isinstance(pong["timestamp"], float)

            reply = await post(http, "你好")
            for listener in (one, other):
                said, answered = await listener.messages(2)
                assert {**said, "timestamp": 0, "message_id": ""} == {
                    "type": "new_message",
                    "thread_id": "default",
                    "role": "user",
                    "content": "你好",
                    "source": "user",
                    "timestamp": 0,
                    "id": 1,
                    "seq": 1,
                    "message_id": "",
                    "in_reply_to": [],
                }
                assert isinstance(said["timestamp"], float)
                assert (answered["role"], answered["source"]) == ("assistant", "assistant")
                assert answered["content"] == reply["response"]

        async def the_other_is_gone() -> bool:
            async with socket(address, "default") as later:
                return bool((await later.next())["connections"] == 2)

        await until(the_other_is_gone)
        for listener in (one, foreign):
            assert {frame["type"] for frame in listener.frames} <= {"connected", "pong", "new_message"}
        await foreign.next("connected")
        assert await foreign.hears_nothing()


async def test_what_a_socket_says_is_recorded_answered_and_pushed(start: Start) -> None:
    address = start("up").address()
    async with client(address) as http, socket(address, "default") as talker, socket(address, "default") as listener:
        recorded = await talker.say("from a socket", "api")
        assert recorded["seq"] == 1
        said, answered = await listener.messages(2)
        assert (said["content"], said["source"]) == ("from a socket", "api")
        assert answered["source"] == "assistant"
        assert [message["interface"] for message in await history(http, "default")] == ["websocket", "websocket"]


async def test_the_room_keeps_what_was_said_and_answers_what_a_kill_left_open(start: Start) -> None:
    process = start("up", LLM_BASE_URL="http://127.0.0.1:1/v1", TURN_TIMEOUT="600")
    async with client(process.address()) as http:
        failed = await http.post("/api/chat", json={"message": "no model"})
        assert (failed.status_code, failed.json()["code"]) == (502, "model_failed")
    listener = sockets.create_server(("127.0.0.1", 0))  # takes the model's call and never answers it
    process.stop()
    process = start("up", LLM_BASE_URL=f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
    async with client(process.address()) as http:
        accepted = await http.post("/api/chat", json={"message": "still there?"}, headers={"Prefer": "respond-async"})
        assert accepted.json()["fate"] == "pending"
    process.signal(signal.SIGKILL)
    process.wait()
    listener.close()
    async with client(start("up").address()) as http:

        async def answered() -> bool:
            return [message["fate"] for message in await history(http, "default")] == ["failed", "answered", None]

        await until(answered)


def test_a_new_room_says_where_it_is_and_what_to_try(start: Start) -> None:
    process = start("up")
    address = process.address()
    assert process.stop() == 0
    assert f"curl -X POST {address}/api/chat" in process.said
    assert "demo model" in process.said
    assert "Traceback" not in process.said
    assert not re.search(r"[Ww]arning", process.said)


def test_a_port_in_use_is_one_sentence(start: Start) -> None:
    with sockets.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start("up", PORT=str(port))
        assert process.wait() == 1
    assert process.said == f"m3: Cannot listen on 127.0.0.1 port {port}: Address already in use. Set HOST or PORT.\n"


def test_a_data_folder_that_cannot_be_written_is_one_sentence(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    process = start("up", DATA_DIR=str(tmp_path / "file" / "data"))
    assert process.wait() == 1
    assert process.said.startswith(f"m3: The data folder {tmp_path}/file/data cannot be written")
    assert process.said.count("\n") == 1


def test_a_second_room_on_the_same_folder_is_one_sentence(start: Start, tmp_path: Path) -> None:
    start("up").started()
    second = start("up")
    assert second.wait() == 1
    assert second.said == f"m3: Another room is running on the data folder {tmp_path}/data. Stop it, or set DATA_DIR.\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("LOG_LEVEL", "loud"),
        ("BROKER_URL", "kafka://x"),
        ("DATABASE_URL", "mysql://x/y"),
        ("BROKER_URL", "u:hush@broker/"),
        ("BROKER_URL", "amqp://u:hu/sh@broker/"),
        ("BROKER_URL", "amqp://u:hush@b:port/"),
        ("DATABASE_URL", "postgresql://u:hu/sh@h:5432/d"),
        ("GRACE", "inf"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(start: Start, name: str, value: str) -> None:
    process = start("up", **{name: value})
    assert process.wait() == 1
    assert process.said.startswith("m3: ")
    assert name in process.said
    assert "hu" not in process.said
    assert process.said.count("\n") == 1


def test_a_stopped_room_leaves_no_process_behind_also_after_one_that_was_killed(start: Start, tmp_path: Path) -> None:
    killed = start("up")
    killed.started()
    killed.kill()
    assert (tmp_path / "data" / "postgres" / "postmaster.pid").exists()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process = start("up")
        process.started()
        process.signal(number)
        if number == signal.SIGTERM:
            process.signal(number)  # as make does, when its process group is signalled
        assert process.wait() == 0
        assert not (tmp_path / "data" / "postgres" / "postmaster.pid").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the database as another user")
def test_root_is_told_which_private_folders_are_opened(start: Start, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    process = start("up", DATA_DIR=str(private / "data"))
    process.started()
    assert process.stop() == 0
    assert f'"folders": ["{private}"]' in process.said


def test_a_path_that_the_embedded_database_cannot_take_is_one_sentence(start: Start, tmp_path: Path) -> None:
    process = start("up", DATA_DIR=str(tmp_path / "my data"))
    assert process.wait() == 1
    assert process.said.startswith("m3: The path of the data folder")
    assert process.said.count("\n") == 1


async def test_a_room_outlives_a_database_that_is_away(start: Start, postgres: str, database_url: str) -> None:
    """Its agents too, which sweep the table meanwhile."""
    process = start("up", DATABASE_URL=database_url, SWEEP_INTERVAL="0.1")
    async with client(process.address()) as http:
        name = database_url.rpartition("?")[0].rpartition("/")[2]
        connection = await asyncpg.connect(postgres)
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        await until(lambda: "sweep put off" in process.said)
        assert (await http.get("/readyz")).json()["message"] == "Missing: database."
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await connection.close()
        await until(lambda: _is_ready(http))
        assert (await post(http, "still there?"))["response"]


async def _is_ready(http: httpx2.AsyncClient) -> bool:
    return (await http.get("/readyz")).status_code == 200
