"""What operators do at the machine: people, keys and threads, on a real database."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import asyncpg
import pytest

from m3 import commands
from m3.errors import StartError
from m3.room import at_the_desk
from m3.settings import Settings

#: Has a command done; returns what is told.
Told = Callable[..., Awaitable[str]]


@pytest.fixture
def told(database_url: str) -> Told:
    async def told(
        command: Callable[..., Awaitable[str]], *words: str, tenant: str | None = None, **options: Any
    ) -> str:
        settings = Settings.model_validate({"database_url": database_url, "tenants": "default,acme"})

        return await at_the_desk(settings, tenant, lambda desk: command(desk, *words, **options))

    return told


async def audit(database_url: str) -> list[tuple[str, ...]]:
    session = await asyncpg.connect(database_url)
    rows = await session.fetch("SELECT tenant, actor, action, target, outcome FROM audit ORDER BY id")
    await session.close()
    return [tuple(row) for row in rows]


def secret(said: str) -> str:
    """What is shown once, at the end of the line."""
    return said.rpartition(": ")[2]


def table(said: str) -> list[list[str]]:
    return [line.split() for line in said.splitlines()[1:]]


async def test_people_are_let_in_listed_reset_and_revoked(told: Told, database_url: str) -> None:
    first = secret(await told(commands.add_user, "Ann", operator=False))
    assert len(first) >= 20
    await told(commands.add_user, "bob", operator=True)
    listed = await told(commands.list_users)
    assert [row[:2] for row in table(listed)] == [["ann", "person"], ["bob", "operator"]]
    assert listed.count("has a one-time password") == 2
    assert first not in listed
    assert secret(await told(commands.reset_user, "ann")) != first
    await told(commands.change_user, "ann", operator=True)
    await told(commands.change_user, "bob", operator=False)
    assert [row[:2] for row in table(await told(commands.list_users))] == [["ann", "operator"], ["bob", "person"]]
    with pytest.raises(StartError, match="must keep an operator"):
        await told(commands.change_user, "ann", operator=False)
    await told(commands.revoke_user, "ann")
    assert [row[0] for row in table(await told(commands.list_users))] == ["bob"]
    with pytest.raises(StartError, match="nobody of that name"):
        await told(commands.revoke_user, "ann")
    with pytest.raises(StartError, match="somebody of that name"):
        await told(commands.add_user, "bob", operator=False)
    with pytest.raises(StartError, match="up to 64 letters"):
        await told(commands.add_user, "b/o", operator=False)
    assert await audit(database_url) == [
        ("default", "command line", "user_added", "ann", "done"),
        ("default", "command line", "user_added", "bob", "done"),
        ("default", "command line", "password_changed", "ann", "done"),
        ("default", "command line", "user_changed", "ann", "done"),
        ("default", "command line", "user_changed", "bob", "done"),
        ("default", "command line", "user_revoked", "ann", "done"),
    ]


async def test_a_reset_ends_sign_ins_and_gives_nobody_a_password_who_signs_in_elsewhere(
    told: Told, database_url: str
) -> None:
    await told(commands.add_user, "ann", operator=False)
    session = await asyncpg.connect(database_url)
    await session.execute(
        "INSERT INTO sign_ins (sign_in_id, tenant, account_id, refresh_hash, expires_at) "
        "SELECT gen_random_uuid(), 'default', account_id, '', now() + interval '1 day' FROM accounts"
    )
    await told(commands.reset_user, "ann")
    assert await session.fetchval("SELECT count(*) FROM sign_ins WHERE revoked_at IS NULL") == 0
    await session.execute("UPDATE accounts SET password_hash = NULL, subject = 'issuer 1', one_time = false")
    with pytest.raises(StartError, match="signs in with a password"):
        await told(commands.reset_user, "ann")
    await session.close()


async def test_programs_get_keys_that_are_shown_once_and_revoked_by_prefix_or_name(
    told: Told, database_url: str
) -> None:
    with pytest.raises(StartError, match="no such thread"):
        await told(commands.add_key, "feed", ["show"], reads=False)
    for thread in ("show", "other"):
        await told(commands.add_thread, thread, "private", None)
    key = secret(await told(commands.add_key, "feed", ["show", "other"], reads=False))
    assert key.startswith("m3k_")
    await told(commands.add_key, "reader", ["show"], reads=True)
    listed = await told(commands.list_keys)
    head, *lines = listed.splitlines()
    feeds, reads = head.index("FEEDS"), head.index("READS")
    assert {line.split()[1]: (line[feeds:reads].strip(), line[reads:].strip()) for line in lines} == {
        "feed": ("other, show", ""),
        "reader": ("show", "show"),
    }
    assert key not in listed
    await told(commands.revoke_key, key.split("_")[1])
    await told(commands.revoke_key, "reader")
    assert await told(commands.list_keys) == "PREFIX  NAME  SINCE  FEEDS  READS"
    with pytest.raises(StartError, match="no key of that prefix or name"):
        await told(commands.revoke_key, "reader")
    assert [row[2] for row in await audit(database_url)].count("key_revoked") == 2


async def test_threads_are_made_opened_closed_and_given_members(told: Told, database_url: str) -> None:
    for name in ("ann", "bob"):
        await told(commands.add_user, name, operator=False)
    await told(commands.add_thread, "show", "private", "ann")
    await told(commands.add_thread, "square", "open", None)
    assert table(await told(commands.list_threads)) == [["show", "private", "1", "ann"], ["square", "open", "0"]]
    await told(commands.show_thread, "show", "open")
    await told(commands.show_thread, "square", "private")
    await told(commands.change_member, "show", "bob", "reader", program=False)
    await told(commands.change_member, "show", "bob", "none", program=False)
    await told(commands.add_key, "feed", ["square"], reads=False)
    await told(commands.change_member, "show", "feed", "feeder", program=False)
    await told(commands.change_member, "square", "feed", "none", program=True)
    assert table(await told(commands.list_threads)) == [["show", "open", "2", "ann"], ["square", "private", "0"]]
    with pytest.raises(StartError, match="must keep an owner"):
        await told(commands.change_member, "show", "ann", "none", program=False)
    with pytest.raises(StartError, match="nobody of that name"):
        await told(commands.add_thread, "mine", "private", "nobody")
    with pytest.raises(StartError, match="a thread of that id"):
        await told(commands.add_thread, "show", "open", None)
    assert [row[0] for row in table(await told(commands.list_threads))] == ["show", "square"]
    assert ("default", "command line", "visibility_changed", "show", "done") in await audit(database_url)
    await told(commands.revoke_user, "ann")
    assert table(await told(commands.list_threads)) == [["show", "open", "1"], ["square", "private", "0"]]


async def test_an_invite_to_a_thread_is_shown_once_and_only_its_hash_is_kept(told: Told, database_url: str) -> None:
    with pytest.raises(StartError, match="no such thread"):
        await told(commands.invite, "show", role="reader", days=7)
    await told(commands.add_thread, "show", "private", None)
    invite = secret(await told(commands.invite, "show", role="reader", days=7))
    assert invite.startswith("m3i_")
    session = await asyncpg.connect(database_url)
    (kept,) = await session.fetch("SELECT *, expires_at - created_at = interval '7 days' AS for_a_week FROM invites")
    await session.close()
    assert (kept["thread_id"], kept["role"], kept["made_by"], kept["for_a_week"]) == ("show", "reader", None, True)
    assert invite[-43:] not in str(kept)
    assert ("default", "command line", "invite_made", "show", "done") in await audit(database_url)


async def test_each_tenant_has_its_own(told: Told, database_url: str) -> None:
    await told(commands.add_user, "ann", operator=False, tenant="acme")
    await told(commands.add_thread, "show", "private", "ann", tenant="acme")
    assert table(await told(commands.list_users)) == []
    assert table(await told(commands.list_threads)) == []
    assert [row[0] for row in table(await told(commands.list_users, tenant="acme"))] == ["ann"]
    assert table(await told(commands.list_threads, tenant="acme")) == [["show", "private", "1", "ann"]]
    with pytest.raises(StartError, match="no tenant nowhere: TENANTS names default, acme"):
        await told(commands.list_users, tenant="nowhere")


async def test_long_lists_are_told_whole(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "MOST", 2)
    for module in ("accounts.Accounts.users", "memberships.Memberships.threads"):
        monkeypatch.setattr(f"m3.access.{module}.__kwdefaults__", {"after": "", "limit": 2})
    for number in range(5):
        await told(commands.add_thread, f"t{number}", "private", None, tenant="acme")
    assert len(table(await told(commands.list_threads, tenant="acme"))) == 5


async def test_a_database_that_is_away_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3.room.MIGRATE_PATIENCE", 0)
    settings = Settings.model_validate({"database_url": "postgresql://127.0.0.1:1/room"})
    with pytest.raises(StartError, match="does not answer"):
        await at_the_desk(settings, None, partial(commands.add_user, name="ann", operator=False))
