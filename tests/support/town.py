"""People, programs and threads of a room that asks who somebody is, and their credentials."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import asyncpg

from m3.access.credentials import digest, new_key
from m3.access.tokens import Tokens, parse_keys
from m3.settings import Settings

KEYS = "first:" + "1" * 64


def asking(**others: object) -> Settings:
    """Settings of a room that asks who somebody is."""
    return Settings.model_validate({"auth": "required", "token_keys": KEYS, "tenants": "default,acme"} | others)


def bearer(credential: str) -> list[tuple[bytes, bytes]]:
    """The headers of a request with the credential."""
    return [(b"host", b"room"), (b"authorization", f"Bearer {credential}".encode())]


def bearer_header(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


@dataclass
class Town:
    """Rows of people, programs and threads, written past the room."""

    sql: asyncpg.Connection

    @classmethod
    @asynccontextmanager
    async def of(cls, database_url: str) -> AsyncIterator["Town"]:
        connection = await asyncpg.connect(database_url)
        try:
            yield cls(connection)
        finally:
            await connection.close()

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
