"""The audit: what is written down, and that it stays as it is."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from m3.store import Store
from m3.store.audit import MAX_PART, Entry, page, write

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
