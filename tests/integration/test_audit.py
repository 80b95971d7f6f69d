"""The audit: what is written down, and that it stays as it is."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from structlog.testing import capture_logs

import m3.access.audit
from m3.access.access import Access
from m3.access.audit import MAX_WAITING, Audit
from m3.access.office import Office
from m3.access.principals import Principal
from m3.access.rules import Action
from m3.addresses import ASKED_FROM
from m3.errors import Forbidden, NotSignedIn, UnknownThread
from m3.store import Store
from m3.store.audit import MAX_PART, Entry, Line, page, write
from tests.support.counting import Since
from tests.support.town import Town, bearer
from tests.support.until import DEADLINE, until

DONE = Entry("default", "anna", "member_added", "show/ben", "done", "203.0.113.7", "reader")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def test_an_entry_is_read_as_it_was_written(store: Store) -> None:
    await write(store.ask, [DONE])
    (line,) = await page(store, "default", 10)
    assert (line.actor, line.action, line.target) == ("anna", "member_added", "show/ben")
    assert (line.outcome, line.address, line.detail) == ("done", "203.0.113.7", "reader")
    assert abs(datetime.now(UTC) - line.at) < timedelta(minutes=1)


async def test_what_was_noted_a_while_ago_says_when(store: Store) -> None:
    await write(store.ask, [DONE, DONE], [3600, 0])
    now, then = await page(store, "default", 10)
    assert timedelta(minutes=59) < now.at - then.at < timedelta(minutes=61)


async def test_pages_are_of_one_tenant_and_newest_first(store: Store) -> None:
    for number in range(10):
        await write(store.ask, [Entry("default", f"anna-{number}", "login"), Entry("acme", f"anna-{number}", "login")])
    newest = await page(store, "acme", 4)
    older = await page(store, "acme", 100, before=newest[-1].id)
    assert [line.actor for line in newest + older] == [f"anna-{number}" for number in reversed(range(10))]
    assert await page(store, "nobody", 100) == []


async def test_it_is_written_with_what_it_tells_of_or_not_at_all(store: Store) -> None:
    class BrokenOffError(Exception):
        pass

    async def break_off() -> None:
        async with store.transaction() as ask:
            await write(ask, [DONE])
            raise BrokenOffError

    with pytest.raises(BrokenOffError):
        await break_off()
    async with store.transaction() as ask:
        await write(ask, [DONE])
    assert len(await page(store, "default", 10)) == 1


@pytest.mark.parametrize("said", ["a\x00b", "\ud800", "x" * 100_000, "'); DROP TABLE audit; --", "你好"])
async def test_whatever_was_said_to_be_a_name_can_be_written(said: str, store: Store) -> None:
    await write(store.ask, [Entry("default", said, "login", outcome="refused")])
    (line,) = await page(store, "default", 10)
    assert len(line.actor) <= MAX_PART


@pytest.mark.parametrize("role", ["the owner", "m3_tenant"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'somebody else'",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "INSERT INTO audit (id, tenant, actor, action, outcome) VALUES (1, 'default', 'anna', 'login', 'done')",
    ],
)
async def test_nobody_changes_what_is_in_it(
    role: str, statement: str, store: Store, database: asyncpg.Connection
) -> None:
    await write(store.ask, [DONE])
    if role == "m3_tenant":
        await database.execute("SELECT set_config('m3.tenant', 'default', false)")
        await database.execute("SET ROLE m3_tenant")
    with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.GeneratedAlwaysError)):
        await database.execute(statement)
    assert len(await page(store, "default", 10)) == 1


async def test_who_speaks_for_a_tenant_adds_to_and_reads_the_audit_of_that_one_alone(
    store: Store, database: asyncpg.Connection
) -> None:
    await write(store.ask, [DONE])
    await database.execute("SELECT set_config('m3.tenant', 'acme', false)")
    await database.execute("SET ROLE m3_tenant")
    entry = "INSERT INTO audit (tenant, actor, action, outcome) VALUES ($1, 'ben', 'login', 'done')"
    await database.execute(entry, "acme")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await database.execute(entry, "default")
    assert [row["tenant"] for row in await database.fetch("SELECT tenant FROM audit")] == ["acme"]


# ---- Refusals, which come one by one or a thousand at a time

MEI = Principal("person", id=UUID(int=1), name="mei")


async def lines(store: Store, count: int) -> list[Line]:
    """The newest of the default tenant, once there are that many."""
    found: list[Line] = []

    async def are_there() -> bool:
        found[:] = await page(store, "default", 5_000)
        return len(found) >= count

    await until(are_there)
    assert len(found) == count
    return found


async def test_who_is_refused_is_in_it_with_what_and_where_and_from_where(access: Access, store: Store) -> None:
    ASKED_FROM.set("203.0.113.7")
    with pytest.raises(UnknownThread):
        await access.check(MEI, Action.READ, "another")
    (line,) = await lines(store, 1)
    assert (line.actor, line.action, line.target, line.outcome) == ("mei", "refused", "another", "refused")
    assert (line.address, line.detail) == ("203.0.113.7", "read: not_found")


async def test_so_is_who_may_not_do_what_is_about_no_thread(access: Access, store: Store) -> None:
    with pytest.raises(Forbidden):
        access.check_without_thread(MEI, Action.OPERATE)
    (line,) = await lines(store, 1)
    assert (line.actor, line.target, line.detail) == ("mei", "", "operate: forbidden")


async def test_so_is_a_person_who_speaks_as_a_program(access: Access, store: Store) -> None:
    with pytest.raises(Forbidden):
        access.source_of(MEI, "api", told=True)
    (line,) = await lines(store, 1)
    assert (line.actor, line.detail) == ("mei", "feed: forbidden")


async def test_it_is_in_the_audit_of_their_own_tenant(access: Access, store: Store) -> None:
    with pytest.raises(UnknownThread):
        await access.check(replace(MEI, tenant="acme"), Action.READ, "show")

    async def is_there() -> bool:
        return [line.actor for line in await page(store, "acme", 10)] == ["mei"]

    await until(is_there)
    assert await page(store, "default", 10) == []


async def test_refusals_of_whom_nobody_knows_are_only_counted(access: Access, store: Store) -> None:
    since = Since()
    for headers in ([], bearer("m3k_12345678_" + "x" * 43), bearer("a.b.c")):
        with pytest.raises(NotSignedIn):
            await access.identify(headers)
    with pytest.raises(NotSignedIn):
        await access.redeem("m3t_" + "x" * 43)
    with pytest.raises(UnknownThread):
        await access.check(MEI, Action.READ, "another")
    assert since.counted("m3_refusals_total", code="not_signed_in") == 4
    assert since.counted("m3_refusals_total", code="not_found") == 1
    assert [line.actor for line in await lines(store, 1)] == ["mei"]


async def test_a_wrong_password_names_who_has_the_account_and_nobody_else(
    office: Office, town: Town, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(m3.access.audit, "GATHER", 0.01)
    since = Since()
    await town.account("mei")
    for name in ("mei", "hunter2"):
        with pytest.raises(NotSignedIn):
            await office.sign_ins.sign_in("default", name, "wrong horse", address="203.0.113.7")
    found = await lines(store, 2)
    assert {(line.actor, line.action, line.outcome, line.address) for line in found} == {
        ("mei", "login", "refused", "203.0.113.7"),
        ("", "login", "refused", "203.0.113.7"),
    }
    assert "hunter2" not in str(found)
    assert "wrong horse" not in str(found)
    assert since.counted("m3_logins_total", outcome="refused") == 2


async def test_a_flood_of_one_kind_is_two_lines_at_most(store: Store) -> None:
    async with Audit.open(store) as audit:
        audit.refused(MEI, "read", UnknownThread(), "thread-0")
        await lines(store, 1)
        for number in range(1, 10_000):
            audit.refused(MEI, "read", UnknownThread(), f"thread-{number}")
    later, first = await lines(store, 2)
    assert (first.target, first.detail) == ("thread-0", "read: not_found")
    assert (later.target, later.detail) == ("thread-1", "read: not_found, 9999 times")


async def test_of_a_flood_of_all_kinds_a_thousand_are_told_and_the_others_counted(store: Store) -> None:
    async with Audit.open(store) as audit:
        for number in range(5_000):
            audit.note(Entry("default", f"somebody-{number}", "login", outcome="refused"))
    newest, *others = await lines(store, MAX_WAITING + 1)
    assert (newest.actor, newest.detail) == ("", "not told one by one, 4000 times")
    assert {line.actor for line in others} == {f"somebody-{number}" for number in range(MAX_WAITING)}


async def test_the_end_of_a_process_writes_what_waits(store: Store) -> None:
    async with Audit.open(store) as audit:
        audit.note(replace(DONE, actor="the first"))
        await lines(store, 1)
        audit.note(replace(DONE, actor="the last"))  # which would wait for ten seconds
    assert [line.actor for line in await page(store, "default", 10)] == ["the last", "the first"]


async def test_what_cannot_be_written_waits_until_it_can(
    store: Store, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(m3.access.audit, "GATHER", 0.01)
    await database.execute("ALTER TABLE audit RENAME TO hidden")
    with capture_logs() as logs:
        async with Audit.open(store) as audit:
            audit.note(replace(DONE, actor="ann"))
            await until(lambda: bool(logs))
            audit.note(replace(DONE, actor="bob"))
            audit.note(replace(DONE, actor="ann", target="another"))
            await database.execute("ALTER TABLE hidden RENAME TO audit")
            found = await lines(store, 2)
    assert {(line.actor, line.target) for line in found} == {("ann", "show/ben"), ("bob", "show/ben")}
    assert "2 times" in next(line.detail for line in found if line.actor == "ann")


async def test_a_database_that_does_not_answer_keeps_no_process_from_ending(
    store: Store, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(m3.access.audit, "LAST_WORDS", 0.1)
    with capture_logs() as logs:
        async with database.transaction():
            await database.execute("LOCK TABLE audit IN ACCESS EXCLUSIVE MODE")
            async with asyncio.timeout(DEADLINE / 2), Audit.open(store) as audit:
                audit.note(DONE)
                audit.note(replace(DONE, actor="ben"))
    assert [(entry["event"], entry["number"]) for entry in logs] == [("refusals were not written down", 2)]


async def test_who_owns_the_database_can_put_old_lines_aside_as_the_runbook_says(
    store: Store, database: asyncpg.Connection
) -> None:
    runbook = (Path(__file__).parents[2] / "deploy/README.md").read_text("utf-8")
    (statements,) = re.findall(r"^```sql\n(BEGIN;\n[^`]*audit[^`]*)```$", runbook, re.MULTILINE)
    age = datetime.now(UTC) - datetime(2025, 6, 1, tzinfo=UTC)
    await write(store.ask, [replace(DONE, actor="long ago"), DONE], [age.total_seconds(), 0])
    await database.execute(statements)
    assert [line.actor for line in await page(store, "default", 10)] == ["anna"]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await database.execute("DELETE FROM audit")
