"""Who asks, and whether they may, on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID, uuid4

import asyncpg
import pytest

from m3.access.access import Access
from m3.access.credentials import digest, new_key
from m3.access.principals import ANYONE, Principal
from m3.access.rules import Action
from m3.access.tokens import Tokens, parse_keys
from m3.errors import Forbidden, NotSignedIn, StartError, UnknownThread
from m3.settings import Settings
from m3.store import Store

KEYS = "first:" + "1" * 64


def settings(**others: object) -> Settings:
    return Settings.model_validate({"auth": "required", "token_keys": KEYS, "tenants": "default,acme"} | others)


def bearer(credential: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"room"), (b"authorization", f"Bearer {credential}".encode())]


@dataclass
class Town:
    """Rows of people, programs and threads, written past the room."""

    sql: asyncpg.Connection

    async def account(self, name: str, tenant: str = "default", *, operator: bool = False) -> UUID:
        account = uuid4()
        await self.sql.execute(
            "INSERT INTO accounts (account_id, tenant, name, operator) VALUES ($1, $2, $3, $4)",
            account,
            tenant,
            name,
            operator,
        )
        return account

    async def signed_in(self, account: UUID, tenant: str = "default", keys: str = KEYS) -> str:
        """An access token."""
        sign_in = uuid4()
        await self.sql.execute(
            "INSERT INTO sign_ins (sign_in_id, tenant, account_id, refresh_hash, expires_at)"
            " VALUES ($1, $2, $3, '', now() + interval '1 day')",
            sign_in,
            tenant,
            account,
        )
        return Tokens(parse_keys(keys), 600).mint(account, tenant, sign_in)

    async def person(self, name: str, tenant: str = "default", *, operator: bool = False) -> str:
        return await self.signed_in(await self.account(name, tenant, operator=operator), tenant)

    async def program(self, name: str, tenant: str = "default") -> str:
        prefix, key = new_key()
        await self.sql.execute(
            "INSERT INTO producer_keys (key_id, tenant, name, prefix, secret_hash) VALUES ($1, $2, $3, $4, $5)",
            uuid4(),
            tenant,
            name,
            prefix,
            digest(key),
        )
        return key

    async def thread(self, key: str, visibility: str = "private", **roles: str) -> None:
        """``roles`` are of people and programs by name."""
        await self.sql.execute("INSERT INTO threads (thread_id, head, visibility) VALUES ($1, 0, $2)", key, visibility)
        for name, role in roles.items():
            await self.sql.execute(
                "INSERT INTO members (thread_id, principal_id, role) SELECT $1, id, $3 FROM ("
                " SELECT account_id AS id, tenant, name FROM accounts"
                " UNION SELECT key_id, tenant, name FROM producer_keys) AS everybody"
                " WHERE name = $2 AND tenant = m3_tenant_of($1)",
                key,
                name,
                role,
            )


@pytest.fixture
async def town(database_url: str) -> AsyncIterator[Town]:
    connection = await asyncpg.connect(database_url)
    try:
        yield Town(connection)
    finally:
        await connection.close()


@pytest.fixture
async def access(store: Store) -> AsyncIterator[Access]:
    async with Access.open(settings(), store) as access:
        yield access


async def may(access: Access, principal: Principal, action: Action, key: str) -> str:
    try:
        await access.check(principal, action, key)
    except (UnknownThread, Forbidden) as error:
        return error.code
    return "yes"


async def test_in_an_open_room_everybody_is_anyone_and_may_everything(store: Store) -> None:
    async with Access.open(Settings(), store) as access:
        assert not access.required
        assert await access.identify([]) == ANYONE == await access.redeem("")
        assert await access.still_may([(ANYONE, Action.ADMIT, "t")]) == [True]
        await access.check(ANYONE, Action.ADMIT, "never heard of")
        access.check_without_thread(ANYONE, Action.OPERATE)


async def test_a_room_that_asks_needs_keys(store: Store) -> None:
    with pytest.raises(StartError, match="TOKEN_KEYS"):
        async with Access.open(settings(token_keys=None), store):
            pass


async def test_a_person_comes_in_with_a_token_and_a_program_with_its_key(access: Access, town: Town) -> None:
    person = await access.identify(bearer(await town.person("mei", "acme")))
    program = await access.identify(bearer(await town.program("danmaku")))
    assert (person.kind, person.tenant, person.name) == ("person", "acme", "mei")
    assert (program.kind, program.tenant, program.name) == ("program", "default", "danmaku")
    assert (await access.identify(bearer(await town.person("root", operator=True)))).kind == "operator"


async def test_a_ticket_lets_in_whom_it_was_made_for_and_only_once(access: Access, town: Town) -> None:
    person = await access.identify(bearer(await town.person("mei")))
    ticket = await access.ticket_for(person)
    told = await asyncio.gather(access.redeem(ticket), access.redeem(ticket), return_exceptions=True)
    assert sorted(map(type, told), key=str) == sorted((Principal, NotSignedIn), key=str)
    assert person in told


async def test_a_standing_allows_what_the_rules_say_and_no_standing_is_as_no_thread(access: Access, town: Town) -> None:
    mei, ann = [await access.identify(bearer(await town.person(name))) for name in ("mei", "ann")]
    feed = await access.identify(bearer(await town.program("feed")))
    await town.thread("show", mei="owner", feed="feeder")
    await town.thread("plaza", "open")
    assert await may(access, mei, Action.ADMIT, "show") == "yes"
    assert await may(access, feed, Action.FEED, "show") == "yes"
    assert await may(access, feed, Action.READ, "show") == "forbidden"
    assert await may(access, ann, Action.READ, "show") == await may(access, ann, Action.READ, "none") == "not_found"
    assert await may(access, ann, Action.SPEAK, "plaza") == "yes"
    assert await may(access, ann, Action.CONFIGURE, "plaza") == "forbidden"
    assert await may(access, feed, Action.FEED, "plaza") == "not_found"
    asked = [(mei, Action.ADMIT, "show"), (feed, Action.READ, "show"), (ann, Action.READ, "show")]
    assert await access.still_may(asked) == [True, False, False]
    assert await access.still_may([]) == []
