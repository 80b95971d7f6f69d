"""What the doctor makes of what it sees, where no server can be had that is so."""

from dataclasses import replace

import pytest

from m3.bus.interface import QueueState
from m3.errors import Unreached
from m3.settings import Settings
from m3.store import DatabaseState
from m3.store.sql import migrations
from m3.topology import AGENT_API, RECORDER
from services.doctor import Report, access, broker, database, edge
from services.doctor.findings import Finding, shown, unreached
from services.doctor.model import listed

GOOD = DatabaseState(
    version="15.0",
    version_number=150000,
    read_only=False,
    full=False,
    may_create=True,
    may_write=True,
    connections=10,
    places=97,
    ahead=0.2,
    uncertain=0.001,
    operators={"default": True},
    migrations={migration.version: migration.checksum for migration in migrations()},
    wall=[],
)


@pytest.mark.parametrize(
    ("product", "version", "mark"),
    [
        ("RabbitMQ", "3.9.29", "wrong"),
        ("RabbitMQ", "3.10.0", "ok"),
        ("RabbitMQ", "4.1.4", "ok"),
        ("RabbitMQ", "unknown", "warning"),
        ("LavinMQ", "2.0.0", "warning"),
    ],
)
def test_a_broker_that_is_too_old_or_another_is_told(product: str, version: str, mark: str) -> None:
    found = broker.version(product, version, "amqp://here/")
    assert (found.mark, found.found) == (mark, f"{product} {version} at amqp://here/")
    assert bool(found.advice) == (mark != "ok")


def test_a_queue_in_which_much_waits_is_a_warning_while_somebody_is_at_it() -> None:
    assert broker.queue_found(RECORDER, QueueState(1_000, 2)).mark == "ok"
    behind = broker.queue_found(RECORDER, QueueState(1_001, 2))
    assert (behind.mark, "more of `m3 recorder`" in behind.advice) == ("warning", True)
    assert broker.queue_found(AGENT_API, QueueState(1_001, 0)).mark == "wrong"


def test_a_database_that_is_as_it_should_be_is_ok() -> None:
    checks = (database.server(GOOD, "here"), database.tables(GOOD), database.connections(GOOD), database.clock(GOOD))
    assert {found.mark for found in checks} == {"ok"}
    assert not any(found.advice for found in checks)


def test_a_database_whose_disk_is_full_is_wrong() -> None:
    found = database.server(replace(GOOD, full=True), "here")
    assert (found.mark, found.found) == ("wrong", "PostgreSQL 15.0 at here, its disk is full: nothing can be recorded")


def test_a_database_that_is_too_old_is_wrong() -> None:
    found = database.server(replace(GOOD, version="14.12", version_number=140012), "here")
    assert (found.mark, found.advice) == ("wrong", "Upgrade PostgreSQL to 15 or newer.")


def test_migrations_that_this_program_does_not_know_are_a_warning_to_upgrade_it() -> None:
    found = database.tables(replace(GOOD, migrations=GOOD.migrations | {"9999": "x"}))
    assert (found.mark, found.advice) == ("warning", "Upgrade this program.")
    assert "9999" in found.found


def test_a_migration_that_was_changed_is_wrong_whatever_else_there_is() -> None:
    found = database.tables(replace(GOOD, migrations={"0001": "x", "9999": "x"}))
    assert (found.mark, found.found) == ("wrong", "0001 differ from this program's")


def test_a_user_who_may_make_no_tables_or_not_write_them_is_told_who_may() -> None:
    assert "m3 migrate" in database.tables(replace(GOOD, migrations={}, may_write=None)).advice
    assert "GRANT CREATE" in database.tables(replace(GOOD, migrations={}, may_write=None, may_create=False)).advice
    assert "GRANT" in database.tables(replace(GOOD, may_write=False)).advice


def test_a_server_with_few_connections_left_is_a_warning() -> None:
    found = database.connections(replace(GOOD, connections=90))
    assert (found.mark, found.found) == ("warning", "90 of 97 in use")


def test_a_tenant_that_nobody_can_let_others_into_is_told() -> None:
    def found(operators: dict[str, bool] | None, *tenants: str) -> Finding | None:
        return next(iter(access.operators(replace(GOOD, operators=operators), tenants)), None)

    told = found({"default": True}, "default")
    assert told == Finding("operators", "ok", "tenant default has one who has signed in")
    told = found({"default": True}, "default", "acme")
    assert told is not None
    assert (told.mark, "--operator --tenant acme" in told.advice) == ("warning", True)
    told = found({"default": False}, "default")
    assert told is not None
    assert (told.mark, "one-time password" in told.advice) == ("warning", True)
    assert found({"default": True}) is None, "where nobody is asked"
    assert found(None, "default") is None, "where the tables are still to be made"


def test_a_database_that_does_not_keep_tenants_apart_is_a_warning() -> None:
    found, lacking = (
        access.operators(replace(GOOD, operators={}, wall=wall), ["default"])[1]
        for wall in ([], ["CREATE ROLE m3_tenant NOLOGIN", "GRANT m3_tenant TO room"])
    )
    assert (found.mark, lacking.mark) == ("ok", "warning")
    assert "CREATE ROLE m3_tenant NOLOGIN; GRANT m3_tenant TO room" in lacking.advice


KEY = "0" * 64


@pytest.mark.parametrize(
    ("settings", "mark", "found"),
    [
        ({}, "ok", "this machine"),
        ({"host": "0.0.0.0", "auth": "open"}, "wrong", "do not start"),
        ({"host": "0.0.0.0", "auth": "open", "auth_open_anywhere": True}, "warning", "0.0.0.0 may read and write"),
        ({"auth": "required"}, "ok", "DATA_DIR"),
        ({"auth": "required", "broker_url": "amqp://broker/"}, "wrong", "TOKEN_KEYS is not set"),
        ({"host": "0.0.0.0", "token_keys": f"k2:{KEY},k1:{KEY}"}, "ok", "the key k2 signs their tokens, k1 good too"),
        ({"host": "0.0.0.0", "token_keys": "k1:hush"}, "wrong", "place 1 is not a name"),
    ],
)
def test_who_is_asked_who_they_are_is_told_with_what_is_missing(
    settings: dict[str, object], mark: str, found: str
) -> None:
    finding = access.doors(Settings.model_validate(settings))
    assert finding.mark == mark
    assert found in finding.found
    assert bool(finding.advice) == (mark != "ok")
    assert "hush" not in finding.found


def test_where_an_open_room_is_meant_it_is_told_how_to_say_so() -> None:
    finding = access.doors(Settings.model_validate({"host": "0.0.0.0", "auth": "open"}))
    assert "AUTH_OPEN_ANYWHERE=yes" in finding.advice


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"content_keys": "k1:hush"}, "CONTENT_KEYS: the key at place 1"),
        ({"limit_tickets": "often"}, "LIMIT_TICKETS"),
        ({"limit_logins": "0/minute"}, "LIMIT_LOGINS"),
        ({"origins": "app.example.com"}, "ORIGINS"),
        ({"auth": "required", "oidc_issuer": "https://id", "oidc_tenant": "acme"}, "OIDC_TENANT must be one of"),
    ],
)
def test_a_setting_with_which_the_room_does_not_start_is_found(settings: dict[str, object], found: str) -> None:
    (finding,) = access.unusable(Settings.model_validate(settings))
    assert finding.mark == "wrong"
    assert found in finding.found
    assert "hush" not in finding.found


def test_settings_that_can_be_used_are_not_told_one_by_one() -> None:
    assert access.unusable(Settings.model_validate({"auth": "required", "content_keys": f"off,k1:{KEY}"})) == []


@pytest.mark.parametrize(("ahead", "found"), [(3.0, "3.0 s ahead of"), (-3.0, "3.0 s behind")])
def test_a_clock_that_differs_is_a_warning(ahead: float, found: str) -> None:
    assert found in database.clock(replace(GOOD, ahead=ahead)).found
    assert database.clock(replace(GOOD, ahead=ahead)).mark == "warning"
    assert database.clock(replace(GOOD, ahead=ahead, uncertain=2.5)).mark == "ok"  # which only a slow answer shows


def test_sessions_that_are_shared_are_wrong() -> None:
    assert database.sessions(pooled=True).mark == "wrong"
    assert database.sessions(pooled=False).mark == "ok"


def test_a_few_of_the_models_are_listed_where_ours_is_not_among_them() -> None:
    assert listed(["a", "b"], "here", "b").mark == "ok"
    assert listed(None, "here", "b").mark == "ok"
    found = listed([f"model-{number}" for number in range(9)], "here", "b")
    assert (found.mark, "model-4, …" in found.found, "model-5" in found.found) == ("warning", True, False)
    assert listed([], "here", "b").found == "here does not list b, nor any other"


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("amqp://user:hush@host:5672/vhost", "amqp://user@host:5672/vhost"),
        ("amqp://host", "amqp://host"),
        ("postgresql://user@[fd00::1]:5432/room?password=hush", "postgresql://user@[fd00::1]:5432/room"),
        ("postgresql://user:hu/sh@host/room", "postgresql://…"),
        ("postgresql://user:12/hush@host/room", "postgresql://…"),
        ("postgresql://user:12?hush@host/room", "postgresql://…"),
        ("postgresql://user:hu#sh@host/room", "postgresql://…"),
        ("postgresql:///room?host=/tmp&password=hush", "postgresql://…"),
        ("https://hush@host/v1", "https://host/v1"),
        ("user:hush@host", "…"),
    ],
)
def test_no_password_is_shown_with_a_url(url: str, seen: str) -> None:
    assert shown(url) == seen


def test_a_room_in_one_process_is_looked_for_where_it_listens() -> None:
    def address(**settings: object) -> str | None:
        return edge.address_of(Settings.model_validate(settings))

    assert address() == "http://127.0.0.1:8888"
    assert address(host="0.0.0.0", port=80) == "http://127.0.0.1:80"
    assert address(host="::", port=80) == "http://[::1]:80"
    assert address(port=0) is None
    assert address(broker_url="amqp://broker/") is None
    assert address(broker_url="amqp://broker/", edge_url="http://edge") == "http://edge"


def test_what_lies_beneath_a_librarys_error_is_told() -> None:
    error = RuntimeError("all attempts failed")
    error.__cause__ = ConnectionRefusedError(111, "refused")
    assert Unreached.because_of(error).obstacle == "away"
    assert Unreached.because_of(RuntimeError("strange")).obstacle == "other"
    finding = unreached("broker", "here", Unreached.because_of(error), "Start it.")
    assert finding == Finding("broker", "wrong", "here: Nobody listens there", "Start it.")


def test_a_report_is_well_until_something_is_wrong() -> None:
    fine = [Finding("a", "ok", "."), Finding("b", "warning", ".", "Do."), Finding("c", "skipped", ".")]
    assert Report(fine).well
    assert not Report([*fine, Finding("d", "wrong", ".", "Do.")]).well


def test_a_report_is_a_line_a_check_and_one_for_what_to_do_folded_where_it_is_wide() -> None:
    report = Report([Finding("broker", "wrong", "it is away", "Start it, and look again whether it is there.")])
    plain = report.text(1_000).replace("\x1b[31m", "").replace("\x1b[0m", "")
    assert plain.splitlines() == [
        "wrong    broker                 it is away",
        "                                Start it, and look again whether it is there.",
    ]
    assert len(report.text(64).splitlines()) == 3
