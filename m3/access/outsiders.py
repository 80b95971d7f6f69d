"""People who sign in elsewhere, by the tokens of an outside issuer."""

from collections.abc import Iterator
from hashlib import sha256
from uuid import uuid4

from m3.access.issuer import Issuer, Outsider
from m3.access.names import name_like
from m3.access.principals import Principal
from m3.errors import NotSignedIn
from m3.store.directory import Directory, OutsidersAccount


class Outsiders:
    """Their accounts are of one tenant, and come to be with their first token."""

    def __init__(self, issuer: Issuer, directory: Directory, tenant: str) -> None:
        self.issuer = issuer.url
        self._issuer = issuer
        self._directory = directory
        self._tenant = tenant

    async def identify(self, token: str) -> Principal:
        """Raises NotSignedIn; IssuerUnavailable; StoreUnavailable."""
        outsider = await self._issuer.identify(token)
        account = await self._directory.outsider(outsider.subject) or await self._welcome(outsider)
        if account.revoked:
            raise NotSignedIn("You may not come in here.")
        return Principal(account.kind, account.tenant, account.account_id, account.name, expires=outsider.expires)

    async def _welcome(self, outsider: Outsider) -> OutsidersAccount:
        made = f"user-{sha256(outsider.subject.encode()).hexdigest()[:8]}"
        async with self._directory.change(self._tenant, outsider.subject) as change:
            for name in _names_like(name_like(outsider.names, otherwise=made)):
                if await change.add_outsider(name, outsider.subject):
                    await change.note("user_added", name, "person, of the issuer")
                    break
        account = await self._directory.outsider(outsider.subject)
        assert account is not None, "a name of so many digits is free, or somebody made the account in the same moment"
        return account


def _names_like(name: str) -> Iterator[str]:
    """Names for who cannot have it: two may be called the same elsewhere."""
    yield name
    yield from (f"{name}-{number}" for number in range(2, 6))
    yield f"{name}-{uuid4().hex[:12]}"
