"""The second wall: to a session that speaks for one tenant PostgreSQL itself shows no other's rows."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from m3.errors import StoreUnavailable
from m3.store import Store, look, migrate, open_store, speaking_for
from m3.store.sql import query
from m3.tenants import DEFAULT, key_of
from m3.threads import ThreadSettings
from services.doctor.access import operators
from services.doctor.findings import Finding
from tests.support.database import Database, private_database
from tests.support.until import DEADLINE

#: One is called as a thread of the others is.
TENANTS = (DEFAULT, "acme", "a")
THREADS = ("acme", "default")
#: What is kept apart, and the column that says whose a row is.
TABLES = {
    "threads": "thread_id",
    "dialogue": "thread_id",
    "turns": "thread_id",
    "members": "thread_id",
    "accounts": "tenant",
    "producer_keys": "tenant",
    "sign_ins": "tenant",
    "audit": "tenant",
    "invites": "thread_id",
    "thread_keys": "thread_id",
}
#: What is shown to every tenant, since nothing comes of it but by the messages, which are kept apart.
SHOWN = {"search_terms"}
_NEW = "WITH new (key, tenant, id) AS (SELECT $1::text, $2::text, $3::uuid) INSERT INTO"
#: A row for each: $1 is the key of a thread, $2 the tenant, $3 an id.
INSERTS = {
    "threads": f"{_NEW} threads (thread_id) SELECT key FROM new",
    "dialogue": f"""
        {_NEW} dialogue (thread_id, role, content, source, interface, message_id, seq, rev, origin, fate)
        SELECT key, 'user', tenant, 'user', 'http_api', id, 1, 1, 'nobody', 'pending' FROM new""",
    "turns": f"""
        {_NEW} turns (turn_id, thread_id, lane, outcome, model, started_at, duration, prompt_tokens, completion_tokens,
            estimated, attempts)
        SELECT id, key, 'user', 'failed', tenant, now(), 1, 1, 1, false, 1 FROM new""",
    "members": f"{_NEW} members (thread_id, principal_id, role) SELECT key, id, 'owner' FROM new",
    "accounts": f"{_NEW} accounts (account_id, tenant, name) SELECT id, tenant, id::text FROM new",
    "producer_keys": f"""
        {_NEW} producer_keys (key_id, tenant, name, prefix, secret_hash)
        SELECT id, tenant, id::text, id::text, '' FROM new""",
    "sign_ins": f"""
        {_NEW} sign_ins (sign_in_id, tenant, account_id, refresh_hash, expires_at)
        SELECT id, tenant, coalesce((SELECT account_id FROM accounts WHERE tenant = new.tenant LIMIT 1), id), '', now()
        FROM new""",
    "invites": f"""
        {_NEW} invites (prefix, secret_hash, thread_id, role, expires_at)
        SELECT id::text, '', key, 'reader', now() FROM new""",
    "thread_keys": f"{_NEW} thread_keys (thread_id, master, wrapped) SELECT key, tenant, '' FROM new",
    "audit": f"{_NEW} audit (tenant, actor, action, outcome) SELECT tenant, key, id::text, 'done' FROM new",
}
#: What makes a row another tenant's.
GIVEN_AWAY = {"thread_id": "split_part(thread_id, '.', 2)", "tenant": "'a'"}
#: What doors write.
WRITTEN = ("threads", "members", "accounts", "producer_keys", "sign_ins", "audit", "invites", "thread_keys")
every_table = pytest.mark.parametrize("table", TABLES)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def fill(url: str) -> None:
    async with connected(url) as owner:
        for tenant in TENANTS:
            for thread_id in THREADS:
                for insert in INSERTS.values():
                    await owner.execute(insert, key_of(tenant, thread_id), tenant, uuid4())


@pytest.fixture
async def room(database_url: str) -> str:
    """The URL of a database in which each tenant has a row or more of everything."""
    await fill(database_url)
    return database_url


@pytest.fixture
async def store(room: str) -> AsyncIterator[Store]:
    """Whose one session all share."""
    async with open_store(room, pool_size=1) as store:
        yield store


async def shown(store: Store, statement: str, *arguments: object) -> list[Any]:
    """The first column of what the store's session gets."""
    async with store._connection() as connection:
        return [row[0] for row in await connection.fetch(statement, *arguments)]


async def whose(store: Store, table: str = "dialogue") -> set[str]:
    """The tenants whose rows the session is shown, where the query names none."""
    found = await shown(store, f"SELECT {TABLES[table]} FROM {table}")
    if TABLES[table] == "tenant":
        return set(found)
    return {key.partition(".")[0] if "." in key else DEFAULT for key in found}


async def session_of(store: Store) -> tuple[str, str]:
    (told,) = await shown(store, "SELECT current_user || ' ' || coalesce(current_setting('m3.tenant', true), '')")
    role, _, tenant = told.partition(" ")
    return role, tenant


async def speak(store: Store, tenant: str) -> None:
    with speaking_for(tenant):
        await session_of(store)


# ---- What is shown and what is written


@every_table
async def test_a_query_that_names_no_tenant_finds_the_rows_of_the_one_that_it_is_asked_for(
    store: Store, table: str
) -> None:
    for tenant in TENANTS:
        with speaking_for(tenant):
            assert await whose(store, table) == {tenant}
    assert await whose(store, table) == set(TENANTS)


@every_table
async def test_a_session_that_was_not_told_for_whom_it_speaks_is_shown_nothing(room: str, table: str) -> None:
    async with connected(room) as connection:
        await connection.execute("SET ROLE m3_tenant")
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
        for nobody in ("", "nobody", "acme.acme", "%"):
            await connection.fetchval("SELECT set_config('m3.tenant', $1, false)", nobody)
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0


@pytest.mark.parametrize("table", WRITTEN)
async def test_a_row_can_be_written_for_the_tenant_and_for_no_other(store: Store, table: str) -> None:
    thread_id = "new" if table in {"threads", "thread_keys"} else "acme"
    with speaking_for("acme"):
        await shown(store, f"{INSERTS[table]} RETURNING 1", key_of("acme", thread_id), "acme", uuid4())
        before = await shown(store, f"SELECT count(*) FROM {table}")
        for tenant in (DEFAULT, "a"):
            with pytest.raises(StoreUnavailable) as refused:
                await shown(store, f"{INSERTS[table]} RETURNING 1", key_of(tenant, thread_id), tenant, uuid4())
            assert isinstance(refused.value.__cause__, asyncpg.InsufficientPrivilegeError)
            assert "row-level security" in str(refused.value.__cause__)
        assert await shown(store, f"SELECT count(*) FROM {table}") == before


@pytest.mark.parametrize("table", ["dialogue", "turns"])
async def test_what_is_recorded_no_door_can_write(store: Store, table: str) -> None:
    for statement in (f"UPDATE {table} SET thread_id = thread_id", f"DELETE FROM {table}", f"TRUNCATE {table}"):
        with speaking_for("acme"), pytest.raises(StoreUnavailable) as refused:
            await shown(store, statement)
        assert isinstance(refused.value.__cause__, asyncpg.InsufficientPrivilegeError)
    with speaking_for("acme"), pytest.raises(StoreUnavailable):
        await shown(store, INSERTS[table], "acme.acme", "acme", uuid4())


@pytest.mark.parametrize("table", [table for table in WRITTEN if table not in {"audit", "thread_keys"}])
async def test_no_row_of_another_tenant_can_be_changed_and_none_given_away(store: Store, table: str) -> None:
    column = TABLES[table]
    with speaking_for("acme"):
        changed = await shown(store, f"UPDATE {table} SET {column} = {column} RETURNING {column}")
        assert {key.partition(".")[0] for key in changed} == {"acme"}
        with pytest.raises(StoreUnavailable) as refused:
            await shown(store, f"UPDATE {table} SET {column} = {GIVEN_AWAY[column]}")
        assert isinstance(refused.value.__cause__, asyncpg.InsufficientPrivilegeError)
        if table == "members":
            assert await shown(store, "DELETE FROM members RETURNING thread_id") == ["acme.acme", "acme.default"]
    assert await whose(store, table) >= {DEFAULT, "a"}


async def test_each_table_is_kept_apart_or_closed_to_who_speaks_for_a_tenant(room: str) -> None:
    async with connected(room) as owner:
        tables = await owner.fetch(
            """
            SELECT relname, relrowsecurity AND EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid) AS apart,
                has_table_privilege('m3_tenant', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') AS open
            FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
            """
        )
    assert {table["relname"] for table in tables if table["apart"] and table["open"]} == set(TABLES)
    assert {table["relname"] for table in tables if table["open"] and not table["apart"]} == SHOWN
    assert {table["relname"] for table in tables if table["apart"] and not table["open"]} == set()


async def test_what_the_store_reads_and_sets_is_the_tenants_alone(store: Store) -> None:
    everybodys = [message.message_id for tenant in TENANTS for message in await store.latest(key_of(tenant, "acme"), 9)]
    assert len(everybodys) == len(TENANTS)
    with speaking_for("acme"):
        assert {message.thread_id for message in (await store.messages(everybodys)).values()} == {"acme.acme"}
        assert {key for _, key in await store.waiting_threads(0)} == {"acme.acme", "acme.default"}
        assert await store.latest("acme", 9) == []
        assert await store.following("a.acme", 0, 9) == []
        assert await store.events_after("acme", 0, 9) == []
        assert await store.waiting_count("acme", "user", 9) == 0
        await store.change_settings("acme.acme", ThreadSettings(pause="wait"))
        with pytest.raises(StoreUnavailable):
            await store.change_settings("acme", ThreadSettings(pause="wait"))
    assert (await store.thread_settings("acme.acme")).pause == "wait"
    assert (await store.thread_settings("acme")).pause is None


# ---- Sessions that many share


async def test_a_session_speaks_for_whoever_uses_it(store: Store) -> None:
    for tenant in ("acme", None, "a", "acme", "acme", DEFAULT, None, None, "acme"):
        with speaking_for(tenant):
            assert await session_of(store) == (("m3_tenant", tenant) if tenant else ("postgres", ""))
    assert await session_of(store) == ("postgres", "")


async def test_it_is_told_only_where_that_is_somebody_else(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def asked(name: str) -> str:
        if name in {"speak_for", "wall"}:
            told.append(name)
        return query(name)

    monkeypatch.setattr("m3.store.postgres.query", asked)
    for _ in range(3):
        await store.head("acme")
    assert told == []
    with speaking_for("acme"):
        for _ in range(3):
            await store.head("acme.acme")
    assert told == ["wall", "speak_for"]
    for tenant in ("a", "a", None, None, "acme"):
        with speaking_for(tenant):
            await store.head("acme.acme")
    assert told == ["wall", *["speak_for"] * 4]


async def _asks_for_nothing(store: Store) -> None:
    with pytest.raises(StoreUnavailable):
        await shown(store, "SELECT nothing")


async def _is_broken_off(store: Store) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await shown(store, "SELECT pg_sleep(60)")


@pytest.mark.parametrize("trouble", [_asks_for_nothing, _is_broken_off])
@pytest.mark.parametrize("before", ["acme", None])
async def test_after_trouble_a_session_speaks_for_the_next_one_all_the_same(
    store: Store, trouble: Callable[[Store], Any], before: str | None
) -> None:
    with speaking_for("a"):
        await store.head("a.acme")
    for after in ("a", None, "acme"):
        with speaking_for(before):
            await trouble(store)
        with speaking_for(after):
            assert await whose(store) == ({after} if after else set(TENANTS))


async def _changes_anothers(store: Store) -> None:
    async with store.transaction() as ask:
        assert await ask("head", "acme.acme")
        await ask("change_settings", "a.acme", "{}")


async def test_a_transaction_that_is_undone_leaves_its_session_speaking_for_the_same(store: Store) -> None:
    with speaking_for("acme"):
        with pytest.raises(StoreUnavailable):
            await _changes_anothers(store)
        assert await whose(store) == {"acme"}
    assert await whose(store) == set(TENANTS)


@pytest.mark.parametrize("tenant", ["acme", None])
async def test_a_session_that_may_not_have_been_told_is_used_no_more(
    store: Store, monkeypatch: pytest.MonkeyPatch, tenant: str | None
) -> None:
    other = None if tenant else "a"
    with speaking_for(other):
        (before,) = await shown(store, "SELECT pg_backend_pid()")
    slowly = {"speak_for": f"{query('speak_for')}, pg_sleep(60)", "wall": query("wall")}
    with monkeypatch.context() as patch, speaking_for(tenant):
        patch.setattr("m3.store.postgres.query", slowly.__getitem__)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await shown(store, "SELECT 1")
    with monkeypatch.context() as patch, speaking_for(tenant):
        patch.setattr(
            "m3.store.postgres.query", (slowly | {"speak_for": "SELECT $1::text, $2::text FROM nowhere"}).__getitem__
        )
        for _ in range(2):
            with speaking_for(tenant or "acme"), pytest.raises(StoreUnavailable):
                await shown(store, "SELECT 1")
    for whom in (other, tenant):
        with speaking_for(whom):
            assert await whose(store) == ({whom} if whom else set(TENANTS))
    assert before not in await shown(store, "SELECT pg_backend_pid()")


async def test_many_at_once_over_few_sessions_never_see_each_others_rows(room: str) -> None:
    dice = random.Random(7)

    async def one(tenant: str | None) -> None:
        with speaking_for(tenant):
            for _ in range(10):
                match dice.randrange(6):
                    case 0:
                        with pytest.raises(StoreUnavailable):
                            await shown(several, "SELECT nothing")
                    case 1:
                        try:
                            async with asyncio.timeout(dice.random() / 100):
                                await whose(several)
                        except TimeoutError:
                            pass
                    case 2:
                        async with several.transaction() as ask:
                            assert bool(await ask("head", "acme.acme")) == (tenant in {None, "acme"})
                    case _:
                        assert await whose(several) == ({tenant} if tenant else set(TENANTS))

    async with (
        open_store(room, pool_size=3) as several,
        asyncio.timeout(4 * DEADLINE),
        asyncio.TaskGroup() as group,
    ):
        for number in range(40):
            group.create_task(one((*TENANTS, None)[number % 4]), name=f"speaker {number}")


async def test_what_a_task_begins_speaks_for_whom_it_does_and_others_do_not(store: Store) -> None:
    begun: list[asyncio.Task[set[str]]] = []
    free = asyncio.Event()

    async def others() -> set[str]:
        await free.wait()
        return await whose(store)

    async with asyncio.TaskGroup() as group:
        begun.append(group.create_task(others(), name="from outside"))
        with speaking_for("acme"):
            begun.append(group.create_task(others(), name="from inside"))
            with speaking_for(None):
                assert await whose(store) == set(TENANTS)
            assert await whose(store) == {"acme"}
        free.set()
    assert [task.result() for task in begun] == [set(TENANTS), {"acme"}]


# ---- The audit


async def test_the_audit_grows_and_is_never_changed_by_whichever_role(store: Store) -> None:
    before = await shown(store, "SELECT id FROM audit")
    statements = (
        "UPDATE audit SET actor = 'somebody else'",
        "UPDATE audit SET actor = 'somebody else' WHERE false",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "TRUNCATE audit CASCADE",
        """
        INSERT INTO audit (id, tenant, actor, action, outcome) OVERRIDING SYSTEM VALUE
        SELECT min(id), 'acme', 'x', 'y', 'done' FROM audit ON CONFLICT (id) DO UPDATE SET actor = 'somebody else'
        """,
    )
    for statement in statements:
        for tenant in ("acme", None):
            with speaking_for(tenant), pytest.raises(StoreUnavailable) as refused:
                await shown(store, statement)
            assert isinstance(refused.value.__cause__, asyncpg.InsufficientPrivilegeError)
    with speaking_for("acme"):
        await shown(store, INSERTS["audit"], "ann", "acme", uuid4())
    assert (await shown(store, "SELECT id FROM audit ORDER BY id"))[:-1] == before


# ---- Users who own less than the server


@pytest.fixture
async def server() -> AsyncIterator[Database]:
    """One on which there was no room yet."""
    async with private_database() as server:
        yield server


def called(url: str, name: str) -> str:
    """The URL of the database of that name."""
    return f"{url.rpartition('/')[0]}/{name}"


async def room_of(server: Database, user: str, rights: str = "", name: str = "") -> str:
    """The URL of a database that the user owns."""
    name = name or user
    async with connected(server.url) as administrator:
        if not await administrator.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", user):
            await administrator.execute(f"CREATE ROLE {user} LOGIN {rights}")
        await administrator.execute(f"CREATE DATABASE {name} OWNER {user}")
    return called(server.url, name).replace("postgres@", f"{user}@")


async def tenants_finding(url: str) -> Finding:
    """What the doctor says of the wall."""
    _, found = operators(await look(url), [DEFAULT])
    return found


def warnings(logs: Sequence[Mapping[str, Any]]) -> int:
    return sum(log["event"] == "no second wall between tenants" for log in logs)


async def test_an_owner_who_may_make_roles_gets_the_wall(server: Database) -> None:
    url = await room_of(server, "builder", "CREATEROLE")
    for _ in range(2):
        await migrate(url)
    await fill(url)
    async with open_store(url, pool_size=1) as store:
        with speaking_for("acme"), capture_logs() as logs:
            assert await whose(store) == {"acme"}
            assert await session_of(store) == ("m3_tenant", "acme")
        assert not warnings(logs)
        assert await whose(store) == set(TENANTS)
        for statement in ("UPDATE audit SET actor = ''", "DELETE FROM audit", "TRUNCATE audit"):
            with pytest.raises(StoreUnavailable) as refused:
                await shown(store, statement)
            assert isinstance(refused.value.__cause__, asyncpg.InsufficientPrivilegeError)
    assert (await tenants_finding(url)).mark == "ok"


async def test_an_owner_who_may_not_is_warned_once_and_goes_on_without_until_an_administrator_made_it(
    server: Database,
) -> None:
    url = await room_of(server, "plain")
    await migrate(url)
    await fill(url)
    async with open_store(url, pool_size=2) as store:
        with capture_logs() as logs:
            await asyncio.gather(*(speak(store, tenant) for tenant in ("acme", "a", "acme")))
        assert warnings(logs) == 1
        for tenant in ("acme", "a", "acme"):
            with speaking_for(tenant):
                assert (await session_of(store))[0] == "plain"
                assert {message.thread_id for message in await store.latest("acme.acme", 9)} == {"acme.acme"}
    found = await tenants_finding(url)
    assert found.mark == "warning"
    assert "CREATE ROLE m3_tenant NOLOGIN; GRANT m3_tenant TO plain" in found.advice

    async with connected(called(server.url, "plain")) as administrator:
        await administrator.execute("; ".join(found.advice.partition(": ")[2].partition(". Then")[0].split("; ")[:2]))
    await migrate(url)
    assert (await tenants_finding(url)).mark == "ok"
    async with open_store(url, pool_size=2) as store:
        with speaking_for("acme"):
            assert await whose(store) == {"acme"}


async def test_a_user_who_was_given_rights_to_the_tables_works_as_their_owner_does(server: Database) -> None:
    url = await room_of(server, "builder", "CREATEROLE")
    await migrate(url)
    await fill(url)
    async with connected(url) as owner:
        await owner.execute("CREATE ROLE worker LOGIN")
        await owner.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO worker")
        await owner.execute("CREATE ROLE reader LOGIN")
        await owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    async with open_store(url.replace("builder@", "worker@"), pool_size=1) as store:
        assert await whose(store) == set(TENANTS)
        await store.change_settings("a.acme", ThreadSettings(pause="wait"))
        with speaking_for("acme"):  # there is no wall for it yet
            assert await whose(store) == set(TENANTS)
    async with connected(url) as owner:
        await owner.execute("GRANT m3_tenant TO worker")
    async with open_store(url.replace("builder@", "worker@"), pool_size=1) as store:
        with speaking_for("acme"):
            assert await whose(store) == {"acme"}
        assert await whose(store) == set(TENANTS)
    async with open_store(url.replace("builder@", "reader@"), pool_size=1) as store:
        assert await whose(store) == set()  # who only reads is nobody's


async def test_another_rooms_user_on_the_same_server_is_shown_nothing_by_the_role_that_they_share(
    server: Database,
) -> None:
    url = await room_of(server, "builder", "CREATEROLE")
    await migrate(url)
    await fill(url)
    async with connected(server.url) as administrator:
        await administrator.execute("CREATE ROLE stranger LOGIN; GRANT m3_tenant TO stranger")
    async with connected(url.replace("builder@", "stranger@")) as stranger:
        for role in ("none", "m3_tenant"):
            await stranger.execute(f"SET ROLE {role}; SET m3.tenant = 'acme'")
            for table in TABLES:
                assert await stranger.fetchval(f"SELECT count(*) FROM {table}") == 0
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await stranger.execute(INSERTS["audit"], "x", "acme", uuid4())


@pytest.mark.parametrize("rights", ["SUPERUSER", "CREATEROLE"])
async def test_rooms_on_one_server_may_all_be_migrated_at_once_and_again(server: Database, rights: str) -> None:
    urls = [await room_of(server, "builder", rights, f"room_{number}") for number in range(4)]
    await asyncio.gather(*(migrate(url) for url in urls))
    await asyncio.gather(*(migrate(url) for url in urls * 2))
    for url in urls:
        assert (await look(url)).wall == []


async def test_a_role_that_passes_all_walls_is_made_one_that_does_not(server: Database) -> None:
    async with connected(server.url) as administrator:
        await administrator.execute("CREATE ROLE m3_tenant SUPERUSER LOGIN")
    await migrate(server.url)
    await fill(server.url)
    async with open_store(server.url, pool_size=1) as store:
        with speaking_for("acme"):
            assert await whose(store) == {"acme"}


async def test_tables_that_a_backup_brought_without_rights_get_them_with_the_next_start(room: str) -> None:
    async with connected(room) as owner:
        await owner.execute("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM m3_tenant")
        await owner.execute("ALTER TABLE dialogue DISABLE ROW LEVEL SECURITY")
    found = await tenants_finding(room)
    assert (found.mark, "ALTER TABLE dialogue ENABLE ROW LEVEL SECURITY" in found.advice) == ("warning", True)
    await migrate(room)
    async with open_store(room, pool_size=1) as store:
        with speaking_for("acme"):
            assert await whose(store) == {"acme"}
