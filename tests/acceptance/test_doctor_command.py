"""``m3 doctor`` and ``m3 migrate``, as an operator runs them."""

import json
from collections.abc import Callable

from tests.support.client import client, post
from tests.support.processes import Process

Start = Callable[..., Process]


async def test_a_room_on_its_servers_is_well_and_nothing_is_said_in_it(
    start: Start, broker_url: str, database_url: str
) -> None:
    model = start("demo-model").address()
    servers = {"BROKER_URL": broker_url, "DATABASE_URL": database_url, "LLM_BASE_URL": f"{model}/v1"}
    address = start("up", **servers).address()
    doctor = start("doctor --hold 0.5", **servers, EDGE_URL=address)
    assert doctor.wait() == 0, doctor.said
    lines = doctor.said.splitlines()
    assert [line.split()[0] for line in lines] == ["ok"] * len(lines), doctor.said
    assert {len(line) - len(line[32:].lstrip()) for line in lines} == {32}
    assert "\x1b" not in doctor.said
    async with client(address) as http:
        assert (await post(http, "hello"))["seq"] == 1
        assert (await http.get("/api/threads/m3:doctor/history")).json()["messages"] == []


def test_a_room_in_one_process_is_well_but_for_its_model(start: Start) -> None:
    port = start("up").address().rpartition(":")[2]
    doctor = start("doctor --json --hold 0", PORT=port)
    assert doctor.wait() == 0, doctor.said
    report = json.loads(doctor.said)
    assert report["well"]
    marks = {finding["check"]: finding["mark"] for finding in report["findings"]}
    assert marks == {
        "broker": "skipped", "database": "skipped", "model": "warning", "access": "ok", "edge": "ok", "socket": "ok",
    }  # fmt: skip


def test_a_room_that_does_not_run_is_wrong(start: Start) -> None:
    servers = {"BROKER_URL": "amqp://u:hush@127.0.0.1:1/", "DATABASE_URL": "postgresql://u:hush@127.0.0.1:1/room"}
    for options in ("", " --json"):
        doctor = start(f"doctor{options} --url http://127.0.0.1:1", **servers, LLM_BASE_URL="http://127.0.0.1:1/v1")
        assert doctor.wait() == 1
        assert doctor.said.count("wrong") == 4
        assert "hush" not in doctor.said
        assert "Traceback" not in doctor.said


def test_migrating_makes_the_tables_and_ends(start: Start, empty_database_url: str) -> None:
    migrating = start("migrate", DATABASE_URL=empty_database_url)
    assert migrating.wait() == 0
    assert "The database was brought up to date: 0001, " in migrating.said
    again = start("migrate", DATABASE_URL=empty_database_url)
    assert again.wait() == 0
    assert again.said == "The database is up to date.\n"


def test_migrating_what_cannot_be_is_one_sentence(start: Start) -> None:
    for settings in ({}, {"DATABASE_URL": "mysql://x/y"}):
        migrating = start("migrate", **settings)
        assert migrating.wait() == 1
        assert migrating.said.startswith("m3: ")
        assert "DATABASE_URL" in migrating.said
        assert migrating.said.count("\n") == 1
