"""How people sign in, stay so, and sign out."""

import hmac
from dataclasses import dataclass, field
from uuid import UUID

from uuid_utils.compat import uuid7

from m3 import metrics
from m3.access.access import Access
from m3.access.credentials import digest, refresh_token, sign_in_of
from m3.access.names import is_proper, known_as
from m3.access.passwords import Passwords, suitable
from m3.access.principals import Principal
from m3.access.rules import Action
from m3.errors import Forbidden, NotSignedIn, PasswordChangeNeeded, Unsuitable, WrongPassword
from m3.store.audit import Entry
from m3.store.changes import Change, SignInRow
from m3.store.directory import Account

#: Seconds for which a refresh token may be shown once more: its answer may have been lost, or another window of the
#: browser asked in the same moment. They are told the same.
REFRESH_LEEWAY = 10.0

_WRONG = "The name or the password is wrong."


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What shows who somebody is: for ``expires_in`` seconds, and what gets the next such token, once."""

    access_token: str = field(repr=False)
    expires_in: int
    refresh_token: str = field(repr=False)


class SignIns:
    """``ttl``: seconds after which a sign-in ends that was not used."""

    def __init__(self, access: Access, passwords: Passwords, *, ttl: float) -> None:
        self._access = access
        self._directory = access.directory
        self._tokens = access.tokens
        self._passwords = passwords
        self._ttl = ttl

    async def sign_in(
        self, tenant: str, name: str, password: str, new_password: str | None = None, *, address: str = ""
    ) -> SignedIn:
        """With ``new_password`` the password is changed first, and the other sign-ins end.

        Raises NotSignedIn where the name or the password is wrong, which are told and timed alike;
        PasswordChangeNeeded; Unsuitable, of the new one; TooManySignIns; StoreUnavailable.
        """
        name = known_as(name)
        here = tenant in self._access.tenants
        account = await self._directory.account_of_name(tenant, name) if here and is_proper(name) else None
        fits = await self._passwords.fits(password, account.password_hash if account else None)
        if account is None or account.password_hash is None or not fits:
            metrics.LOGINS.labels("refused").inc()
            if here:  # and unnamed where nobody has the name: it may be a password that was typed in the wrong place
                named = account.name if account else ""
                self._access.audit.note(Entry(tenant, named, "login", outcome="refused", address=address))
            raise NotSignedIn(_WRONG)
        if new_password is None:
            if account.one_time:
                raise PasswordChangeNeeded
            new_hash = None
        else:
            new_hash = await self._hash_of(new_password, password)
        async with self._directory.change(tenant, account.name, address) as change:
            hashed = new_hash or account.password_hash
            if new_hash is not None and not await self._change_password(change, account, new_hash):
                raise NotSignedIn(_WRONG)  # from just now on
            signed_in = await self.begin(change, account.account_id, tenant, hashed)
        metrics.LOGINS.labels("done").inc()
        if new_hash is not None:
            self._access.forget(account.account_id)
        return signed_in

    async def begin(self, change: Change, account: UUID, tenant: str, password_hash: str) -> SignedIn:
        """A sign-in of the account, with that change. Raises NotSignedIn where its password is another."""
        sign_in = uuid7()
        refresh = refresh_token(sign_in)
        if not await change.add_sign_in(sign_in, account, password_hash, digest(refresh), self._ttl):
            raise NotSignedIn(_WRONG)
        await change.note("login")
        return self._signed_in(account, tenant, sign_in, refresh)

    async def refresh(self, token: str, *, address: str = "") -> SignedIn:
        """Exchange a refresh token for another, and an access token. One that was exchanged before is somebody else's
        too, so its sign-in ends. Raises NotSignedIn; TooOften; StoreUnavailable."""
        sign_in = sign_in_of(token)
        async with self._access.presented(sign_in):
            return await self._refreshed(sign_in, token, address)

    async def _refreshed(self, sign_in: UUID | None, token: str, address: str) -> SignedIn:
        whose = await self._directory.whose_sign_in(sign_in) if sign_in else None
        if sign_in is None or whose is None or whose[0] not in self._access.tenants:
            raise NotSignedIn("The token is not good.")
        tenant, name = whose
        following = None
        async with self._directory.change(tenant, name, address) as change:
            row = await change.lock_sign_in(sign_in, REFRESH_LEEWAY)
            if row is not None:
                following = await self._renew(change, row, sign_in, token)
        if row is None:
            raise NotSignedIn("You were signed out.")
        if following is None:
            self._access.forget(row.account_id)
            raise NotSignedIn("The token was used before, so its sign-in has ended.")
        return self._signed_in(row.account_id, tenant, sign_in, following)

    async def sign_out(self, principal: Principal, *, address: str = "") -> None:
        """End the sign-in that the principal's authority comes from; whoever has none has nothing to end here."""
        if principal.id is None or principal.sign_in is None:
            return
        async with self._directory.change(principal.tenant, principal.name or "", address) as change:
            await change.end_sign_in(principal.sign_in)
            await change.note("logout")
        self._access.forget(principal.id)

    async def change_password(
        self, principal: Principal, password: str, new_password: str, *, address: str = ""
    ) -> None:
        """Change it, and end all other sign-ins of the account.

        Raises WrongPassword; Unsuitable, of the new one; Forbidden for who has none; NotSignedIn; TooManySignIns;
        StoreUnavailable.
        """
        account = await self._directory.account(principal.id) if principal.id else None
        if account is None or account.password_hash is None:
            raise Forbidden("You have no password here.")
        if not await self._passwords.fits(password, account.password_hash):
            self._access.audit.note(Entry(account.tenant, account.name, "wrong_password", "", "refused", address))
            raise WrongPassword
        new_hash = await self._hash_of(new_password, password)
        async with self._access.change(principal, Action.CHANGE_PASSWORD, address=address) as change:
            if not await self._change_password(change, account, new_hash, but=principal.sign_in):
                raise WrongPassword  # from just now on
        self._access.forget(account.account_id)

    async def _hash_of(self, new_password: str, password: str) -> str:
        if new_password == password:
            raise Unsuitable("The new password is the old one.")
        return await self._passwords.hash(suitable(new_password))

    async def _change_password(
        self, change: Change, account: Account, new_hash: str, *, but: UUID | None = None
    ) -> bool:
        """Whether the password was still the one that was shown."""
        if not await change.change_password(account.account_id, account.password_hash, new_hash, one_time=False):
            return False
        await change.end_sign_ins(account.account_id, but=but)
        await change.note("password_changed")
        return True

    async def _renew(self, change: Change, row: SignInRow, sign_in: UUID, token: str) -> str | None:
        """The token that follows; None where this one was used before, which ends the sign-in."""
        shown = digest(token)
        followings = (refresh_token(sign_in, secret) for secret in self._tokens.successors(token))
        if hmac.compare_digest(shown, row.refresh_hash):
            following = next(followings)
            await change.renew_sign_in(sign_in, digest(following), self._ttl)
            return following
        if row.just_renewed and row.previous_hash is not None and hmac.compare_digest(shown, row.previous_hash):
            for following in followings:
                if hmac.compare_digest(digest(following), row.refresh_hash):
                    return following
        await change.end_sign_in(sign_in)
        await change.note("token_reused", outcome="refused")
        return None

    def _signed_in(self, account: UUID, tenant: str, sign_in: UUID, refresh: str) -> SignedIn:
        return SignedIn(self._tokens.mint(account, tenant, sign_in), int(self._tokens.ttl), refresh)
