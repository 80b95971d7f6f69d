"""How people sign in, stay so, and sign out; and what opens a browser's socket."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.types import Scope

from m3.access.access import TICKET_TTL, Access
from m3.access.invites import Invitation
from m3.access.limits import Limits
from m3.access.names import is_proper, known_as
from m3.access.office import Office
from m3.access.passwords import LENGTH
from m3.access.sign_ins import SignedIn
from m3.errors import Forbidden, NotInvited, PasswordChangeNeeded, Taken, TooOften
from m3.settings import Settings
from m3.store.audit import Entry
from m3.tenants import tenant_of, thread_id_of
from m3.web import documented
from m3.web.browsers import tell_allowance
from services.gateway.asking import Address, Who, address_of
from services.gateway.guards import (
    INVALID_NAME,
    NO_DATABASE,
    NO_INVITE,
    TOO_MANY_SIGN_INS,
    TOO_MANY_WRONG,
    TOO_OFTEN,
    WRONG_PASSWORD,
    form,
    of_a_body,
)
from services.gateway.schemas import Login, NewPassword, Refresh, SignedUp, SignUp, Ticket, Tokens

_WRONG_LOGIN = (401, "not_signed_in", "The name or the password is wrong.")
_NOT_GOOD = (401, "not_signed_in", "The token is not good.")
_INVALID_PASSWORD = (422, "invalid_request", f"new_password: {LENGTH}")
_NO_SIGN_UPS = (403, "forbidden", "Operators make the accounts here.")
_TAKEN = (409, "taken", "Somebody has or had that name, a person or a program.")
_TOO_MANY_SIGN_UPS = (
    429,
    "rate_limited",
    "Too many attempts to make an account, at most 60 in 3600 seconds; try again in 287 s.",
)
_CHANGE_IT = (403, "password_change_needed", str(PasswordChangeNeeded()))


def signing_in(access: Access, office: Office, limits: Limits, settings: Settings) -> APIRouter:
    router = APIRouter(tags=["signing in"])
    of_a_form = (*of_a_body(settings.body_limit), NO_DATABASE)

    @router.post(
        "/api/login",
        summary="Sign in",
        dependencies=[Depends(form)],
        responses=documented(
            *of_a_form, _INVALID_PASSWORD, _WRONG_LOGIN, _CHANGE_IT, TOO_MANY_WRONG, TOO_MANY_SIGN_INS
        ),
    )
    async def login(asked: Login, request: Request, address: Address) -> Tokens:
        """With `new_password` the password is changed too, which a password for one sign-in asks for."""
        password = asked.password.get_secret_value()
        new = asked.new_password.get_secret_value() if asked.new_password else None
        tenant = asked.tenant or settings.tenant_names[0]
        async with _guess(access, limits, request.scope, tenant, known_as(asked.name)):
            return _tokens(await office.sign_ins.sign_in(tenant, asked.name, password, new, address=address))

    @router.post(
        "/api/signup",
        summary="Make an account by an invite",
        status_code=201,
        dependencies=[Depends(form)],
        responses=documented(
            *of_a_form, INVALID_NAME, _NO_SIGN_UPS, NO_INVITE, _TAKEN, _TOO_MANY_SIGN_UPS, TOO_MANY_SIGN_INS
        ),
    )
    async def sign_up(asked: SignUp, request: Request, address: Address) -> SignedUp:
        """In its tenant; you are a member of its thread, and signed in. Only where the operator lets people do so."""
        with access.refusing():
            if not settings.sign_up:
                raise Forbidden(_NO_SIGN_UPS[2])
        invitation = await office.sign_ups.find(asked.invite.get_secret_value())
        password = asked.password.get_secret_value()
        with _noting_refusals(access, invitation, address):
            async with limits.sign_up(address) as allowance:
                tell_allowance(request.scope, allowance)
                made = await office.sign_ups.sign_up(invitation, asked.name, password, address=address)
        tokens = _tokens(made.signed_in)
        return SignedUp(**tokens.model_dump(), thread_id=made.joined.thread_id, role=made.joined.role)

    @router.post(
        "/api/refresh",
        summary="Stay signed in",
        dependencies=[Depends(form)],
        responses=documented(*of_a_form, (422, "invalid_request", Refresh.told()), _NOT_GOOD, TOO_OFTEN),
    )
    async def refresh(asked: Refresh, address: Address) -> Tokens:
        """Each refresh token is good once. One that was used before ends the sign-in: somebody else has it too."""
        token = asked.refresh_token.get_secret_value()
        return _tokens(await office.sign_ins.refresh(token, address=address))

    @router.post("/api/logout", summary="Sign out", status_code=204, responses=documented(NO_DATABASE))
    async def logout(principal: Who, address: Address) -> None:
        """Neither the access token nor the refresh token is good any more. A key is revoked by an operator."""
        await office.sign_ins.sign_out(principal, address=address)

    @router.post(
        "/api/password",
        summary="Change your password",
        status_code=204,
        dependencies=[Depends(form)],
        responses=documented(*of_a_form, _INVALID_PASSWORD, WRONG_PASSWORD, TOO_MANY_WRONG, TOO_MANY_SIGN_INS),
    )
    async def change_password(asked: NewPassword, principal: Who, request: Request, address: Address) -> None:
        """Ends all your other sign-ins."""
        async with _guess(access, limits, request.scope, principal.tenant, principal.name or "", principal.sign_in):
            await office.sign_ins.change_password(
                principal, asked.password.get_secret_value(), asked.new_password.get_secret_value(), address=address
            )

    @router.post("/api/ws-ticket", summary="Get what opens one socket", responses=documented(NO_DATABASE))
    async def ticket(principal: Who) -> Ticket:
        """Good once, as `?ticket=` of a socket's address, which no other credential belongs into."""
        return Ticket(ticket=await access.ticket_for(principal), expires_in=int(TICKET_TTL))

    return router


@asynccontextmanager
async def _guess(  # noqa: PLR0913, PLR0917
    access: Access, limits: Limits, scope: Scope, tenant: str, name: str, sign_in: UUID | None = None
) -> AsyncIterator[None]:
    """A block that looks at a password. Too many wrong ones are refused before it."""
    address = address_of(scope)
    try:
        async with limits.guess(tenant, name, address, sign_in) as allowance:
            tell_allowance(scope, allowance)
            yield
    except TooOften as error:
        if tenant in access.tenants:
            account = await access.directory.account_of_name(tenant, name) if is_proper(name) else None
            named = account.name if account else ""
            access.audit.note(Entry(tenant, named, "login", "", "refused", address, error.code))
        raise


@contextmanager
def _noting_refusals(access: Access, invitation: Invitation, address: str) -> Iterator[None]:
    """A block in which whoever was sent the invitation makes an account; nobody knows yet who they are."""
    try:
        yield
    except (NotInvited, Taken, TooOften) as error:
        thread_id, why = thread_id_of(invitation.key), f"{error.code}, by the invite {invitation.prefix}"
        access.audit.note(Entry(tenant_of(invitation.key), "", "sign_up", thread_id, "refused", address, why))
        raise


def _tokens(signed_in: SignedIn) -> Tokens:
    return Tokens(
        access_token=signed_in.access_token, expires_in=signed_in.expires_in, refresh_token=signed_in.refresh_token
    )
