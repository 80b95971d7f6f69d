"""What operators see to: people's accounts, programs' keys, and the audit of their tenant."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from m3.access.credentials import prefix_of
from m3.access.names import known_as
from m3.access.office import Office
from m3.settings import Settings
from m3.store import END, Store
from m3.store.audit import page
from m3.web import documented
from services.gateway.asking import Address, Who
from services.gateway.guards import (
    FOREIGN,
    INVALID_NAME,
    INVALID_PAGE,
    LAST_OPERATOR,
    NO_DATABASE,
    NO_SUCH_NAME,
    NO_THREAD,
    TAKEN,
    TOO_MANY_SIGN_INS,
    form,
    of_a_body,
    own,
)
from services.gateway.schemas import (
    HISTORY_LIMIT,
    AfterName,
    AtMost,
    Audit,
    AuditLine,
    BeforeLine,
    ChangedUser,
    Key,
    Keys,
    NewKey,
    NewPasswordOfUser,
    NewUser,
    ShownKey,
    ShownPassword,
    User,
    Users,
)

_LIST = documented(INVALID_PAGE, NO_DATABASE)
_CHANGED_MEANWHILE = (409, "taken", "Their password was changed in the same moment; try again.")
_REVOKE = documented(NO_SUCH_NAME, INVALID_NAME, NO_DATABASE)

Prefix = Annotated[str, Path(description="What stands between `m3k_` and the next `_`; or the key's name.")]


def accounts(office: Office, store: Store, settings: Settings) -> APIRouter:
    router = APIRouter(tags=["operating"])
    of_a_form = (*of_a_body(settings.body_limit), NO_DATABASE)

    @router.get("/api/users", summary="The accounts of people", responses=_LIST)
    async def users(principal: Who, after: AfterName = "", limit: AtMost = 100) -> Users:
        found = await office.accounts.users(principal, after=after, limit=min(limit, HISTORY_LIMIT))
        return Users(users=[User.model_validate(user) for user in found])

    @router.post(
        "/api/users",
        summary="Make an account",
        status_code=201,
        dependencies=[Depends(form)],
        responses=documented(*of_a_form, INVALID_NAME, TAKEN),
    )
    async def add_user(asked: NewUser, principal: Who, address: Address) -> ShownPassword:
        """With a password for one sign-in, which is shown this once."""
        password = await office.accounts.add_user(principal, asked.name, operator=asked.operator, address=address)
        return ShownPassword(name=known_as(asked.name), operator=asked.operator, password=password)

    @router.delete("/api/users/{name}", summary="Revoke an account", status_code=204, responses=_REVOKE)
    async def revoke_user(name: str, principal: Who, address: Address) -> None:
        """And sign it out everywhere; open sockets are closed within a minute. The name may be given again."""
        await office.accounts.revoke_user(principal, name, address=address)

    @router.put(
        "/api/users/{name}",
        summary="Make somebody an operator, or a person again",
        dependencies=[Depends(form)],
        responses=documented(*of_a_form, (422, "invalid_request", ChangedUser.told()), NO_SUCH_NAME, LAST_OPERATOR),
    )
    async def change_user(name: str, asked: ChangedUser, principal: Who, address: Address) -> User:
        """Within 15 s everywhere. The last operator stays one."""
        changed = await office.accounts.change_user(principal, name, operator=asked.operator, address=address)
        return User.model_validate(changed)

    @router.post(
        "/api/users/{name}/password",
        summary="Give somebody another password",
        dependencies=[Depends(own)],
        responses=documented(FOREIGN, NO_SUCH_NAME, INVALID_NAME, _CHANGED_MEANWHILE, NO_DATABASE, TOO_MANY_SIGN_INS),
    )
    async def reset_user(name: str, principal: Who, address: Address) -> NewPasswordOfUser:
        """For one sign-in, which is to bring another; it is shown this once. They are signed out everywhere."""
        password = await office.accounts.reset_user(principal, name, address=address)
        return NewPasswordOfUser(name=known_as(name), password=password)

    @router.get("/api/keys", summary="The keys of programs", responses=_LIST)
    async def keys(principal: Who, after: AfterName = "", limit: AtMost = 100) -> Keys:
        found = await office.accounts.keys(principal, after=after, limit=min(limit, HISTORY_LIMIT))
        return Keys(keys=[Key.model_validate(key) for key in found])

    @router.post(
        "/api/keys",
        summary="Make a producer key",
        status_code=201,
        dependencies=[Depends(form)],
        responses=documented(*of_a_form, (422, "invalid_request", NewKey.told()), NO_THREAD, TAKEN),
    )
    async def add_key(asked: NewKey, principal: Who, address: Address) -> ShownKey:
        """For a program that feeds these threads. The key is shown this once."""
        key = await office.accounts.add_key(principal, asked.name, asked.threads, reads=asked.reads, address=address)
        return ShownKey(
            prefix=prefix_of(key) or "", name=known_as(asked.name), threads=asked.threads, reads=asked.reads, key=key
        )

    @router.delete("/api/keys/{prefix}", summary="Revoke a producer key", status_code=204, responses=_REVOKE)
    async def revoke_key(prefix: Prefix, principal: Who, address: Address) -> None:
        await office.accounts.revoke_key(principal, prefix, address=address)

    @router.get("/api/audit", summary="What was done, or refused, and to whom", responses=_LIST)
    async def audit(principal: Who, limit: AtMost = 100, before: BeforeLine = END) -> Audit:
        """Newest first."""
        lines = await page(store, principal.tenant, min(limit, HISTORY_LIMIT), before=before)
        return Audit(entries=[AuditLine.model_validate(line) for line in lines])

    return router
