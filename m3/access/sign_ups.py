"""How whoever is sent an invite, and has no account, makes one."""

from m3 import metrics
from m3.access.access import Access
from m3.access.invites import Invites
from m3.access.names import proper_name
from m3.access.passwords import Passwords, suitable
from m3.access.sign_ins import SignedIn, SignIns
from m3.errors import NotInvited, Taken
from m3.tenants import tenant_of


class SignUps:
    """Whether the operator lets them is for the door to say."""

    def __init__(self, access: Access, passwords: Passwords, sign_ins: SignIns, invites: Invites) -> None:
        self._access = access
        self._passwords = passwords
        self._sign_ins = sign_ins
        self._invites = invites

    async def sign_up(self, invite: str, name: str, password: str, *, address: str = "") -> SignedIn:
        """A person's account in the tenant of the invite, a member of its thread, and signed in: all of it, or nothing.

        Raises Unsuitable, of the name or the password; NotInvited, and TooOften where too many that came from the same
        address were not good; Taken; TooManySignIns; StoreUnavailable.
        """
        name, password = proper_name(name), suitable(password)
        with self._access.refusing():
            async with self._access.presented():
                shown = await self._invites.shown(invite)
                tenant = tenant_of(shown.key)
                if tenant not in self._access.tenants:
                    raise NotInvited
                hashed = await self._passwords.hash(password)
                async with self._access.directory.change(tenant, name, address) as change:
                    await change.lock_accounts(shown.made_by)
                    account = await change.add_account(name, hashed, operator=False, one_time=False)
                    if account is None:
                        raise Taken("There is somebody of that name, a person or a program.")
                    await change.note("user_added", name, f"person, by the invite {shown.prefix}")
                    await self._invites.join(change, shown, account, name)
                    signed_in = await self._sign_ins.begin(change, account, tenant, hashed)
        metrics.LOGINS.labels("done").inc()
        return signed_in
