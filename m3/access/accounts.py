"""People's accounts and programs' keys: what operators see to."""

from collections.abc import Callable, Sequence
from uuid import UUID

from m3.access.credentials import digest, new_key
from m3.access.names import proper_name
from m3.access.passwords import Passwords, one_time_password
from m3.access.principals import Principal
from m3.access.rules import Action
from m3.errors import Forbidden, LastOperator, Taken, UnknownName, UnknownThread
from m3.store.changes import User
from m3.store.directory import ChangeBy, Directory, KeyOfProgram
from m3.tenants import key_of

#: Whom the first start makes.
FIRST_OPERATOR = "admin"
#: The thread that everybody with an account finds.
OPEN_THREAD = "default"
#: Most that one list has.
MOST = 500


def at_the_machine(tenant: str) -> Principal:
    """Whoever may run commands where the room runs, and so needs no account."""
    return Principal("operator", tenant, name="command line")


class Accounts:
    """``by`` is who does it, and whose tenant it is done in. That they may look is for the door to check; that they may
    change something ``change`` sees with the change itself, and raises NotSignedIn and Forbidden. ``forget`` is told
    whose account or key was changed."""

    def __init__(
        self,
        directory: Directory,
        passwords: Passwords,
        *,
        change: ChangeBy | None = None,
        forget: Callable[[UUID], None] = lambda _: None,
    ) -> None:
        self._directory = directory
        self._change = change or directory.change_by
        self._passwords = passwords
        self._forget = forget

    async def begin(self, tenants: Sequence[str]) -> str | None:
        """See to it that somebody can sign in and has where to speak: where there has been no operator yet, one in
        the first tenant, and in each tenant an open thread. Returns the operator's password, which is good
        for one sign-in, to whoever made it; of several processes that start at once that is one."""
        for tenant in tenants:
            async with self._directory.change(tenant, "the first start") as change:
                if await change.add_thread(key_of(tenant, OPEN_THREAD), "open"):
                    await change.note("thread_made", OPEN_THREAD, "open")
        if await self._directory.any_operator():
            return None
        password = one_time_password()
        hashed = await self._passwords.hash(password)
        async with self._directory.change(tenants[0], "the first start") as change:
            made = await change.add_first_operator(FIRST_OPERATOR, hashed)
            if made:
                await change.note("user_added", FIRST_OPERATOR, "operator")
        return password if made else None

    async def users(self, by: Principal, *, after: str = "", limit: int = MOST) -> list[User]:
        """By name, those after that one."""
        return await self._directory.users(by.tenant, after, limit)

    async def add_user(self, by: Principal, name: str, *, operator: bool = False, address: str = "") -> str:
        """Returns a password that is good for one sign-in. Raises Unsuitable and Taken."""
        name, password = proper_name(name), one_time_password()
        hashed = await self._passwords.hash(password)
        async with self._change(by, Action.OPERATE, address=address) as change:
            if not await change.add_account(name, hashed, operator=operator):
                raise Taken("There is somebody of that name, a person or a program.")
            await change.note("user_added", name, "operator" if operator else "person")
        return password

    async def reset_user(self, by: Principal, name: str, *, address: str = "") -> str:
        """Returns a new password that is good for one sign-in, and ends those that there are. Raises UnknownName; Taken
        where they changed it themselves in the same moment."""
        name, password = proper_name(name), one_time_password()
        account = await self._directory.account_of_name(by.tenant, name)
        if account is None or account.password_hash is None:
            raise UnknownName("There is nobody of that name who signs in with a password.")
        hashed = await self._passwords.hash(password)
        async with self._change(by, Action.OPERATE, of=name, address=address) as change:
            if not await change.change_password(account.account_id, account.password_hash, hashed, one_time=True):
                raise Taken("Their password was changed in the same moment; try again.")
            await change.end_sign_ins(account.account_id)
            await change.note("password_changed", name, "one-time")
        self._forget(account.account_id)
        return password

    async def revoke_user(self, by: Principal, name: str, *, address: str = "") -> None:
        """They are signed out everywhere, and their name is free. Raises UnknownName; Forbidden for oneself, so that an
        operator is left."""
        name = proper_name(name)
        async with self._change(by, Action.OPERATE, of=name, address=address) as change:
            account = await change.revoke_account(name)
            if account is None:
                raise UnknownName("There is nobody of that name.")
            if account == by.id:
                raise Forbidden("Nobody may revoke their own account.")
            await change.note("user_revoked", name)
        self._forget(account)

    async def change_user(self, by: Principal, name: str, *, operator: bool, address: str = "") -> User:
        """Make somebody an operator, or a person again. Raises UnknownName and LastOperator."""
        name = proper_name(name)
        async with self._change(by, Action.OPERATE, of=name, address=address) as change:
            await change.hold_operators()
            changed = await change.change_operator(name, operator=operator)
            if changed is None:
                raise UnknownName("There is nobody of that name.")
            if not await change.any_operator():
                raise LastOperator
            await change.note("user_changed", name, "operator" if operator else "person")
        account, user = changed
        self._forget(account)
        return user

    async def keys(self, by: Principal, *, after: str = "", limit: int = MOST) -> list[KeyOfProgram]:
        """By prefix, those after that one."""
        return await self._directory.keys(by.tenant, after, limit)

    async def add_key(
        self, by: Principal, name: str, threads: Sequence[str], *, reads: bool = False, address: str = ""
    ) -> str:
        """A producer key for a program that feeds those threads, by their ids, and that may read them too where it
        ``reads``. It is shown this once. Raises Unsuitable, Taken, and UnknownThread."""
        name = proper_name(name)
        prefix, key = new_key()
        keys = {key_of(by.tenant, thread_id) for thread_id in threads}
        async with self._change(by, Action.OPERATE, address=address) as change:
            key_id = await change.add_key(name, prefix, digest(key))
            if key_id is None:
                raise Taken("There is somebody of that name, a person or a program.")
            if await change.add_member(key_id, list(keys), "member" if reads else "feeder") < len(keys):
                raise UnknownThread
            await change.note("key_added", prefix, f"{name}, for {', '.join(threads)}")
        return key

    async def revoke_key(self, by: Principal, named: str, *, address: str = "") -> tuple[str, str]:
        """By its prefix or its name; returns both. Raises Unsuitable and UnknownName."""
        named = proper_name(named)
        async with self._change(by, Action.OPERATE, address=address) as change:
            revoked = await change.revoke_key(named)
            if revoked is None:
                raise UnknownName("There is no key of that prefix or name.")
            key_id, prefix, name = revoked
            await change.note("key_revoked", prefix, name)
        self._forget(key_id)
        return prefix, name
