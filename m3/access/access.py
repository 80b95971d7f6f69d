"""Who asks, and whether they may. Every door asks here, and nobody else looks at credentials."""

import hmac
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from math import inf
from uuid import UUID

from m3 import metrics
from m3.access.admissions import RECHECK, Admissions
from m3.access.audit import Audit
from m3.access.credentials import digest, is_ticket, new_ticket, prefix_of
from m3.access.issuer import Issuer
from m3.access.limits import Failures
from m3.access.memory import Memory
from m3.access.outsiders import Outsiders
from m3.access.principals import ANYONE, Principal
from m3.access.rules import BECAUSE, Action, about_a_thread, may
from m3.access.speaking import action_of, source_of
from m3.access.tokens import Tokens, issuer_of, parse_keys
from m3.errors import Denied, Expired, Forbidden, NotInvited, NotSignedIn, StartError, TooOften, UnknownThread
from m3.events import OutsideSource
from m3.settings import Settings
from m3.store import Store, speaking_for
from m3.store.changes import Change
from m3.store.directory import Directory
from m3.store.stances import Stance
from m3.tasks import background
from m3.tenants import tenant_of, thread_id_of

#: Seconds for which it is remembered who somebody is, and how they stand to a thread: within them a revocation is seen.
MEMORY = 15.0
#: Seconds after which what was good is asked about no more from an address that showed too much that was not.
LATELY = 3600.0
#: Seconds for which a ticket opens a socket.
TICKET_TTL = 30.0

_BEARER = re.compile(rb"bearer +([A-Za-z0-9._~+/=-]{1,8192})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Known:
    """Whose a credential is, and when it ends by itself, in seconds since the epoch."""

    principal: Principal
    ends: float = inf


class Access:
    """One for each process with a door. With AUTH=open everybody is ANYONE, and may do everything."""

    def __init__(  # noqa: PLR0913, PLR0917  # what `open` puts together
        self,
        directory: Directory,
        tenants: frozenset[str],
        tokens: Tokens | None = None,
        outsiders: Outsiders | None = None,
        audit: Audit | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory = directory
        self.tenants = tenants
        self.admissions = Admissions(self.refusals)
        self._tokens = tokens
        self._outsiders = outsiders
        self._audit = audit
        self._known: Memory[bytes, _Known] = Memory(MEMORY, clock)
        self._stances: Memory[tuple[UUID, str], Stance] = Memory(MEMORY, clock)
        self._failures = Failures(clock)
        self._lately: Memory[bytes | UUID, bool] = Memory(LATELY, clock)  # by a key's hash, and by a sign-in

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        store: Store,
        *,
        clock: Callable[[], float] = time.monotonic,
        recheck: float = RECHECK,
    ) -> AsyncIterator["Access"]:
        """While inside the block, the ``admissions`` of who may not read any more are ended. ``clock`` tells seconds;
        ``recheck``: seconds between looks at that.

        Raises StartError where AUTH=required, and the settings of that cannot be used.
        """
        directory = Directory(store)
        tenants = frozenset(settings.tenant_names)
        tokens = tokens_of(settings)
        async with AsyncExitStack() as stack:
            outsiders = None
            if tokens is not None and settings.oidc_issuer is not None:
                tenant = tenant_of_outsiders(settings)
                issuer = await stack.enter_async_context(Issuer.open(settings.oidc_issuer, settings.oidc_audience))
                outsiders = Outsiders(issuer, directory, tenant)
            audit = await stack.enter_async_context(Audit.open(store))
            access = cls(directory, tenants, tokens, outsiders, audit, clock)
            if access.required:
                looking = access.admissions.look_again(recheck)
                await stack.enter_async_context(background("looks at who may still read", looking))
            yield access

    @property
    def tokens(self) -> Tokens:
        """Those of a room that asks who somebody is."""
        assert self._tokens is not None
        return self._tokens

    @property
    def audit(self) -> Audit:
        """Likewise."""
        assert self._audit is not None
        return self._audit

    @property
    def required(self) -> bool:
        """Whether the room asks who somebody is."""
        return self._tokens is not None

    async def identify(self, headers: Sequence[tuple[bytes, bytes]]) -> Principal:
        """Whose credential the request brings, in the one Authorization header of its raw headers.

        Raises NotSignedIn where there is none, or it is not good (any more); TooOften where too many that came from the
        same address were not; StoreUnavailable.
        """
        if self._tokens is None:
            return ANYONE
        with self.refusing():
            return await self._identified(self._tokens, [value for name, value in headers if name == b"authorization"])

    async def _identified(self, tokens: Tokens, credentials: Sequence[bytes]) -> Principal:
        if not credentials:
            raise NotSignedIn("Sign in first.")
        bearer = _BEARER.fullmatch(credentials[0]) if len(credentials) == 1 else None
        if bearer is None:
            raise NotSignedIn("There must be one Authorization header, of the kind Bearer.")
        credential = bearer[1].decode("ascii")
        hashed = digest(credential)
        known = self._known.recall(hashed)
        if known is None or known.ends <= time.time():
            known = await self._known.look(hashed, partial(self._whose, tokens, credential, hashed))
        return known.principal

    async def redeem(self, ticket: str) -> Principal:
        """Whoever the ticket was made for; it is good for nobody any more. Raises NotSignedIn, TooOften and
        StoreUnavailable."""
        if self._tokens is None:
            return ANYONE
        with self.refusing():
            async with self.presented():
                found = await self.directory.take_ticket(digest(ticket)) if is_ticket(ticket) else None
                if found is None:
                    raise NotSignedIn("The ticket is not good, or not any more.")
                return self._of_a_tenant_here(found)

    @asynccontextmanager
    async def presented(self, known_by: bytes | UUID | None = None, *, signed: bool = False) -> AsyncIterator[None]:
        """A block that finds out whether a credential is good. One that is not counts for the address that it came
        from, and past FAILURES nothing in the block is asked: but of what is ``signed``, which cannot be made up, and
        of what was good lately, or whoever shares an address with others could shut them out. Raises TooOften."""
        lately = known_by is not None and self._lately.recall(known_by) is not None
        if not (signed or lately):
            await self._failures.check()
        try:
            yield
        except (NotSignedIn, NotInvited):
            if lately:
                self._lately.forget(lambda known, _: known == known_by)
            await self._failures.count()
            raise
        if known_by is not None:
            self._lately.remember(known_by, True)  # a set, of which each is remembered for a while

    async def ticket_for(self, principal: Principal) -> str:
        """What opens one socket within TICKET_TTL seconds. Raises StoreUnavailable."""
        assert principal.id is not None, "anyone needs no ticket"
        ticket = new_ticket()
        await self.directory.add_ticket(
            digest(ticket), principal.id, principal.sign_in, principal.expires, ttl=TICKET_TTL
        )
        return ticket

    async def check(self, principal: Principal, action: Action, key: str) -> None:
        """Whether they may do this in the thread of that key.

        Raises UnknownThread where there is none, or none that they may know of; Forbidden where they may not do this
        there; StoreUnavailable.
        """
        if not self.required:
            return
        with self.refusing(principal, action, thread_id_of(key)):
            await self._check(principal, action, key)

    async def _check(self, principal: Principal, action: Action, key: str) -> None:
        stance = self._remembered(principal, key)
        if stance is None or not stance.allows(action):  # refusals are not remembered
            stance = await self._looked_up(principal, key)
            if not stance.allows(action):
                raise Forbidden("You may not do this in this thread.")

    async def may_besides(self, principal: Principal, action: Action, key: str) -> bool:
        """Whether who was let do something in the thread may do this there as well, which they did not ask for: where
        they may not it is no refusal, and by what is remembered. Raises UnknownThread and StoreUnavailable."""
        if not self.required:
            return True
        stance = self._remembered(principal, key) or await self._looked_up(principal, key)
        return stance.allows(action)

    def _remembered(self, principal: Principal, key: str) -> Stance | None:
        return None if principal.id is None else self._stances.recall((principal.id, key))

    async def _looked_up(self, principal: Principal, key: str) -> Stance:
        """How they stand to the thread just now. Raises UnknownThread where they do not find it."""
        if principal.id is None or tenant_of(key) != principal.tenant:
            raise UnknownThread
        with self.speaking_for(principal):
            return await self._stances.look((principal.id, key), partial(self._stance, principal.id, key))

    async def check_anew(self, principal: Principal, action: Action, key: str) -> None:
        """As ``check``, past what is remembered. Raises NotSignedIn too, where they are somebody no more."""
        if not self.required:
            return
        with self._not_remembering(principal), self.refusing(principal, action, thread_id_of(key)):
            (refusal,) = await self.refusals([(principal, action, key)])
            if refusal is not None:
                raise refusal

    @asynccontextmanager
    async def change(
        self, by: Principal, action: Action, key: str | None = None, *, of: str | UUID | None = None, address: str = ""
    ) -> AsyncIterator[Change]:
        """As ``Directory.change_by``."""
        with self._not_remembering(by), self.refusing(by, action, thread_id_of(key or "")):
            async with self.directory.change_by(by, action, key, of=of, address=address) as change:
                yield change

    @contextmanager
    def _not_remembering(self, principal: Principal) -> Iterator[None]:
        """Whoever turns out to be signed out is not let in again."""
        try:
            yield
        except NotSignedIn:
            self.forget(principal.id)
            raise

    def check_without_thread(self, principal: Principal, action: Action) -> None:
        """Whether they may do what is about no thread. Raises Forbidden."""
        assert not about_a_thread(action)
        with self.refusing(principal, action):
            if self.required and not may(principal.kind, action):
                raise Forbidden(BECAUSE.get(action, "You may not do this."))

    def source_of(self, principal: Principal, source: OutsideSource, *, told: bool) -> OutsideSource:
        """As ``m3.access.speaking`` has it. Raises Forbidden."""
        with self.refusing(principal, action_of(source)):
            return source_of(principal, source, told=told)

    @contextmanager
    def refusing(
        self, principal: Principal | None = None, action: Action | None = None, thread_id: str = ""
    ) -> Iterator[None]:
        """What is refused inside the block is counted, and written down where it is known who asked for what."""
        try:
            yield
        except TooOften:
            raise  # is counted where it is raised
        except Denied as error:
            metrics.REFUSALS.labels(error.code).inc()
            if principal is not None and action is not None:
                self.audit.refused(principal, action.name.lower(), error, thread_id)
            raise

    async def refusals(self, asked: Sequence[tuple[Principal, Action, str]]) -> list[Denied | None]:
        """Why each of them may not do that any more in the thread of that key, or None where they still may; past what
        is remembered, by one look at the database for all. Raises StoreUnavailable."""
        if not self.required:
            return [None] * len(asked)
        stances = await self.directory.stances([(who.id, who.sign_in, key) for who, _, key in asked])
        return [self._refusal(*one, stance) for one, stance in zip(asked, stances, strict=True)]

    def _refusal(self, who: Principal, action: Action, key: str, stance: Stance) -> Denied | None:
        if who.expires is not None and who.expires <= time.time():
            return Expired()
        if who.tenant not in self.tenants:
            return NotSignedIn("There is no such tenant any more.")
        return UnknownThread() if who.tenant != tenant_of(key) else stance.refusal(action)

    def forget(self, principal: UUID | None = None, key: str | None = None) -> None:
        """What this process remembers of a principal, by its id, or of a thread, when it changed it itself."""
        self._known.forget(lambda _, known: known.principal.id == principal)
        self._stances.forget(lambda place, _: principal == place[0] or key == place[1])

    def speaking_for(self, principal: Principal) -> AbstractContextManager[None]:
        """A block in which the database shows only what belongs to the principal's tenant."""
        return speaking_for(principal.tenant) if self.required else nullcontext()

    async def _whose(self, tokens: Tokens, credential: str, hashed: bytes) -> _Known:
        if (prefix := prefix_of(credential)) is not None:
            async with self.presented(hashed):
                return _Known(await self._program(prefix, hashed))
        async with self.presented(signed=True):
            if self._outsiders is not None and issuer_of(credential) == self._outsiders.issuer:
                outsider = self._of_a_tenant_here(await self._outsiders.identify(credential))
                return _Known(outsider, outsider.expires or inf)
            claims = tokens.read(credential)  # and its signature, for which nobody is asked
            principal = await self._who(claims.account, claims.sign_in)
            if principal.tenant != claims.tenant:
                raise NotSignedIn("The token is not good.")
        self._lately.remember(claims.sign_in, True)
        return _Known(principal, claims.expires)

    async def _program(self, prefix: str, hashed: bytes) -> Principal:
        key = await self.directory.key(prefix)
        if key is None or not hmac.compare_digest(key.secret_hash, hashed):
            raise NotSignedIn("The key is not good, or not any more.")
        return self._of_a_tenant_here(Principal("program", key.tenant, key.key_id, key.name))

    async def _who(self, principal_id: UUID, sign_in: UUID) -> Principal:
        """Whoever has that account, as long as the sign-in is good."""
        found = await self.directory.who(principal_id, sign_in)
        if found is None:
            raise NotSignedIn("You were signed out.")
        return self._of_a_tenant_here(Principal(found.kind, found.tenant, principal_id, found.name, sign_in))

    def _of_a_tenant_here(self, principal: Principal) -> Principal:
        if principal.tenant not in self.tenants:
            raise NotSignedIn("There is no such tenant any more.")
        return principal

    async def _stance(self, principal_id: UUID, key: str) -> Stance:
        """Raises UnknownThread where they do not find the thread."""
        (stance,) = await self.directory.stances([(principal_id, None, key)])
        if not stance.finds:
            raise UnknownThread
        return stance


def tenant_of_outsiders(settings: Settings) -> str:
    """Of people with tokens of an outside issuer. Raises StartError where there is no such tenant."""
    if settings.oidc_tenant not in settings.tenant_names:
        raise StartError("OIDC_TENANT must be one of TENANTS.")
    return settings.oidc_tenant


def tokens_of(settings: Settings) -> Tokens | None:
    """What a room reads tokens with that asks who somebody is. Raises StartError where TOKEN_KEYS cannot be used."""
    if not settings.auth_required:
        return None
    if settings.token_keys is None:
        raise StartError(
            "AUTH=required needs TOKEN_KEYS, the same for all services, such as "
            "TOKEN_KEYS=first:$(openssl rand -hex 32)."
        )
    return Tokens(parse_keys(settings.token_keys.get_secret_value()), settings.access_token_ttl)
