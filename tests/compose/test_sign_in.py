"""The cluster as it is shipped, which asks everybody who they are: through the edge, and by the runbook."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.compose.deployment import Deployment, deployed
from tests.compose.engine import CommandError, Engine
from tests.support.packages import Say

# A test may have to wait for containers that are started, and the first for images that are made.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1500)]

PASSWORD = "correct horse battery"
FORGED = "203.0.113.9"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def room(engine: Engine, say: Say, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    """Nothing is set: agents have a demo model, and AUTH is what it is in containers."""
    async with deployed(engine, say, tmp_path_factory.mktemp("m3signin"), {}) as deployment:
        yield deployment


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def admin(room: Deployment) -> dict[str, Any]:
    """What the first operator was given at the sign-in with the password that the runbook finds."""
    told = await room.do("logs", "--no-color", "gateway")
    [password] = re.findall(r"one-time password, which is shown once: (\S+)", told)
    return await sign_in(room, "admin", password, PASSWORD)


async def sign_in(room: Deployment, name: str, password: str, new_password: str | None = None) -> dict[str, Any]:
    async with httpx2.AsyncClient(base_url=room.edge, timeout=30) as http:
        body = {"name": name, "password": password} | ({"new_password": new_password} if new_password else {})
        answer = await http.post("/api/login", json=body, headers={"X-Forwarded-For": FORGED})
        signed_in: dict[str, Any] = answer.raise_for_status().json()
        return signed_in


@asynccontextmanager
async def client(room: Deployment, credential: str | None = None) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"Authorization": f"Bearer {credential}"} if credential else {}
    async with httpx2.AsyncClient(base_url=room.edge, timeout=30, headers=headers) as http:
        yield http


def socket(room: Deployment, ticket: str | None = None) -> connect:
    query = f"?ticket={ticket}" if ticket else ""
    return connect(f"{room.edge.replace('http', 'ws', 1)}/ws/chat/default{query}", proxy=None)


async def frame(connection: ClientConnection) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(await connection.recv())
    return told


async def test_who_signs_in_speaks_and_opens_a_socket_and_nobody_else_does(
    room: Deployment, admin: dict[str, Any]
) -> None:
    async with client(room) as http:
        assert (await http.post("/api/chat", json={"message": "hello"})).json()["code"] == "not_signed_in"
        assert (await http.get("/api/threads/default/history")).status_code == 401
    with pytest.raises(InvalidStatus) as refused:
        async with socket(room):
            pass
    assert refused.value.response.status_code == 401

    async with client(room, admin["access_token"]) as http:
        ticket = (await http.post("/api/ws-ticket")).raise_for_status().json()["ticket"]
        async with socket(room, ticket) as connection:
            assert (await frame(connection))["type"] == "connected"
            said = await http.post("/api/chat", json={"message": "hello"})
            assert said.status_code == 200
            assert (await frame(connection))["content"] == "hello"
    with pytest.raises(InvalidStatus) as refused:
        async with socket(room, ticket):
            pass
    assert refused.value.response.status_code == 401, "a ticket is good once"
    assert ticket not in await logs(room)


async def test_an_operator_lets_others_in_from_the_command_line(room: Deployment, admin: dict[str, Any]) -> None:
    told = await room.do("run", "--rm", "-T", "--no-deps", "gateway", "user", "add", "ann", within=120)
    ann = await sign_in(room, "ann", told.strip().rpartition(": ")[2], PASSWORD)
    await room.do("run", "--rm", "-T", "--no-deps", "gateway", "thread", "add", "show", "--owner", "ann", within=120)
    told = await room.do(
        *("run", "--rm", "-T", "--no-deps", "gateway", "key", "add", "my-stream", "--thread", "show"), within=120
    )
    key = told.strip().rpartition(": ")[2]
    async with client(room, key) as program, client(room, ann["access_token"]) as person:
        fed = await program.post("/api/threads/show/messages", json=[{"message": "666"}])
        assert fed.status_code == 202, fed.text
        assert (await program.get("/api/threads/show/history")).status_code == 403
        history = (await person.get("/api/threads/show/history")).json()["messages"]
        assert [(message["content"], message["source"]) for message in history][:1] == [("666", "api")]
    async with client(room, admin["access_token"]) as http:
        done = (await http.get("/api/audit")).raise_for_status().json()
    assert "command line" in str(done)
    assert FORGED not in str(done), "an address is what the edge sees, whatever a client says"


async def test_no_log_has_what_somebody_signs_in_with(room: Deployment, admin: dict[str, Any]) -> None:
    told = await logs(room)
    assert "/api/login" in told
    for secret in (PASSWORD, admin["access_token"], admin["refresh_token"]):
        assert secret not in told


async def test_the_doctor_finds_a_room_well_that_asks_who_comes(room: Deployment, admin: dict[str, Any]) -> None:
    told = await room.do("run", "--rm", "-T", "doctor", "--json", within=120)
    report = json.loads(told[told.index("{") :])
    assert report["well"], report
    found = {finding["check"]: finding for finding in report["findings"]}
    assert "asks who comes" in found["socket"]["found"]
    assert {found[check]["mark"] for check in ("access", "operators", "tenants", "socket")} == {"ok"}, report


async def test_the_runbooks_new_keys_for_tokens_sign_nobody_out(room: Deployment, admin: dict[str, Any]) -> None:
    refresh = {"refresh_token": admin["refresh_token"]}
    async with client(room) as http:
        old = (await http.post("/api/refresh", json=refresh)).raise_for_status().json()
        await room.follow_runbook("Who comes in", block=2, replacing=("sleep 660", "true"))
        assert (await http.get("/api/me", headers=bearer(old))).status_code == 401, "or its key would never go"
        new = (await http.post("/api/refresh", json={"refresh_token": old["refresh_token"]})).raise_for_status().json()
        assert (await http.get("/api/me", headers=bearer(new))).json()["name"] == "admin"


async def test_the_runbooks_step_for_a_leaked_key_leaves_one_that_is_new(
    room: Deployment, admin: dict[str, Any]
) -> None:
    keys = room.secret("token_keys")
    leaked = keys.read_text()
    before = await sign_in(room, "admin", PASSWORD)
    await room.follow_runbook("Who comes in", block=3)
    assert re.fullmatch(r"k\d+:[0-9a-f]{64}", keys.read_text())
    assert keys.read_text() != leaked
    async with client(room) as http:
        assert (await http.get("/api/me", headers=bearer(before))).status_code == 401
        refresh = {"refresh_token": before["refresh_token"]}
        new = (await http.post("/api/refresh", json=refresh)).raise_for_status().json()
        assert (await http.get("/api/me", headers=bearer(new))).status_code == 200


async def test_the_runbook_seals_a_room_changes_its_key_and_goes_on_without_one_that_is_lost(
    room: Deployment, admin: dict[str, Any]
) -> None:
    keys = room.secret("content_keys")
    signed_in = await sign_in(room, "admin", PASSWORD)
    async with client(room, signed_in["access_token"]) as http:
        (await http.post("/api/chat", json={"message": "plain at first"})).raise_for_status()

        async def told() -> list[str]:
            history = (await http.get("/api/threads/default/history")).raise_for_status().json()
            return [message["content"] for message in history["messages"]]

        await room.follow_runbook("Sealing", block=0)
        await room.follow_runbook("Sealing", block=2)
        assert "plain at first" in await told()
        with pytest.raises(CommandError, match="There are keys already"):
            await room.follow_runbook("Sealing", block=0)
        await room.follow_runbook("Sealing", block=1)
        assert re.fullmatch(r"k\d+:[0-9a-f]{64}", keys.read_text())
        assert "plain at first" in await told()

        lost, _, _ = keys.read_text().partition(":")
        keys.write_text(f"other:{'ab' * 32}")
        await room.follow_runbook("Sealing", block=3, replacing=("'k1'", f"'{lost}'"))
        await room.healthy("gateway", "pusher", "agent", "nginx")
        assert "plain at first" not in await told()
        (await http.post("/api/chat", json={"message": "and on it goes"})).raise_for_status()
        assert "and on it goes" in await told()


def bearer(signed_in: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {signed_in['access_token']}"}


async def logs(room: Deployment) -> str:
    return await room.do("logs", "--no-color", "nginx", "gateway", "pusher")
