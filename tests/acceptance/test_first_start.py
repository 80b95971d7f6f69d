"""The first start of a room that asks who somebody is, and what an operator does then."""

import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.client import client
from tests.support.processes import Process
from tests.support.town import KEYS

Start = Callable[..., Process]


def one_time_passwords(*processes: Process) -> list[str]:
    """All that were told."""
    return re.findall(
        r"admin of the tenant \w+, with this one-time password, which is shown once: (\S+)\n", told(*processes)
    )


def told(*processes: Process) -> str:
    return "".join(process.said for process in processes)


async def test_a_new_room_tells_once_how_its_operator_signs_in_who_lets_others_in(start: Start, tmp_path: Path) -> None:
    room = start("up", AUTH="required")
    address = room.address()
    [password] = one_time_passwords(room)
    assert stat.S_IMODE((tmp_path / "data/token_keys").stat().st_mode) == 0o600
    assert "with a new_password of your own" in room.said
    shown = room.said[room.said.index(f"The room is at {address}") :]
    assert f"curl -X POST {address}/api/login" in shown
    assert "admin" not in shown, "who may be revoked"
    assert "/api/chat" not in shown, "which would be refused"
    async with client(address) as http:
        assert (await http.post("/api/chat", json={"message": "hello"})).status_code == 401
        body = {"name": "admin", "password": password}
        assert (await http.post("/api/login", json=body)).json()["code"] == "password_change_needed"
        signed_in = await http.post("/api/login", json=body | {"new_password": "correct horse"})
        bearer = {"Authorization": f"Bearer {signed_in.raise_for_status().json()['access_token']}"}
        said = await http.post("/api/chat", json={"message": "hello"}, headers=bearer)
        assert said.json()["thread_id"] == "default"

        adding = start("user add ann")  # while the room runs on its own database
        assert adding.wait() == 0, adding.said
        users = (await http.get("/api/users", headers=bearer)).json()
        assert "ann" in str(users)

        assert room.stop() == 0
    again = start("up", AUTH="required")
    async with client(again.address()) as http:
        assert (await http.get("/api/me", headers=bearer)).json()["name"] == "admin", "its keys for tokens are kept"
    assert one_time_passwords(again) == []
    assert again.stop() == 0
    listing = start("user list")  # and while it does not run
    assert listing.wait() == 0
    assert re.search(r"^ann +person", listing.said, re.MULTILINE)


def test_of_gateways_that_start_at_once_one_tells_the_password(
    start: Start, broker_url: str, empty_database_url: str
) -> None:
    servers = {"BROKER_URL": broker_url, "DATABASE_URL": empty_database_url, "AUTH": "required", "TOKEN_KEYS": KEYS}
    gateways = [start("gateway", **servers) for _ in range(3)]
    for gateway in gateways:
        gateway.address()
    assert len(one_time_passwords(*gateways)) == 1
    resetting = start("user reset admin", **servers)
    assert resetting.wait() == 0, resetting.said


@pytest.mark.parametrize("service", ["gateway", "pusher"])
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"AUTH": "required"}, "TOKEN_KEYS=first:"),
        ({"AUTH": "required", "TOKEN_KEYS": "first:hush"}, "TOKEN_KEYS: the key at place 1"),
        ({"HOST": "0.0.0.0"}, "TOKEN_KEYS=first:"),
        ({"HOST": "0.0.0.0", "AUTH": "open"}, "AUTH_OPEN_ANYWHERE=true"),
    ],
)
def test_a_door_of_its_own_that_could_let_nobody_in_or_everybody_is_one_sentence(
    start: Start, service: str, settings: dict[str, str], sentence: str
) -> None:
    """Before it waits for a database that may be away."""
    away = {"BROKER_URL": "amqp://127.0.0.1:1/", "DATABASE_URL": "postgresql://127.0.0.1:1/room"}
    door = start(service, **away, **settings)
    assert door.wait() == 1
    assert door.said.startswith("m3: ")
    assert sentence in door.said
    assert "hush" not in door.said
    assert door.said.count("\n") == 1
