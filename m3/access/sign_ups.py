"""How whoever is sent an invite, and has no account, makes one."""

from dataclasses import dataclass

from m3.access.access import Access
from m3.access.invites import Invitation, Invites, Joined
from m3.access.names import proper_name
from m3.access.passwords import Passwords, suitable
from m3.access.sign_ins import SignedIn, SignIns
from m3.errors import NotInvited, Taken
from m3.tenants import tenant_of, thread_id_of


@dataclass(frozen=True, slots=True)
class SignedUp:
    signed_in: SignedIn
    joined: Joined


class SignUps:
    """Whether the operator lets people make accounts, and how many, is for the door to say."""

    def __init__(self, access: Access, passwords: Passwords, sign_ins: SignIns, invites: Invites) -> None:
        self._access = access
        self._passwords = passwords
        self._sign_ins = sign_ins
        self._invites = invites

    async def find(self, invite: str) -> Invitation:
        """Raises NotInvited where there is none, before anything else is done for whoever shows it; TooOften where too
        many that came from the same address were not good."""
        with self._access.refusing():
            async with self._access.presented():
                found = await self._invites.find(invite)
                if found is None or tenant_of(found.key) not in self._access.tenants:
                    raise NotInvited
                return found

    async def sign_up(self, invitation: Invitation, name: str, password: str, *, address: str = "") -> SignedUp:
        """A person's account in the tenant of the invitation, a member of its thread, and signed in: all, or nothing.

        Raises Unsuitable, of the name or the password; NotInvited where it is not good any more; Taken, also by who was
        revoked; TooManySignIns; StoreUnavailable.
        """
        name, tenant = proper_name(name), tenant_of(invitation.key)
        hashed = await self._passwords.hash(suitable(password))
        with self._access.refusing():
            async with self._access.directory.change(tenant, name, address) as change:
                await change.lock_accounts(invitation.made_by)
                role = await invitation.role(change)
                account = await change.add_invited(name, hashed)
                if account is None:
                    raise Taken("Somebody has or had that name, a person or a program.")
                await change.note("user_added", name, f"person, by the invite {invitation.prefix}")
                await invitation.admit(change, account, name, role)
                signed_in = await self._sign_ins.begin(change, account, tenant, hashed)
        return SignedUp(signed_in, Joined(thread_id_of(invitation.key), role))
