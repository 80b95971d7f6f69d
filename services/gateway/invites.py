"""Invites to threads: who may admit people makes them, and whoever is signed in and is sent one joins."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path

from m3.access.credentials import PREFIX_PATTERN
from m3.access.office import Office
from m3.settings import Settings
from m3.tenants import thread_id_of
from m3.web import documented
from services.gateway.asking import Address, Key, Who
from services.gateway.guards import INVALID_THREAD, NO_DATABASE, NO_INVITE, TOO_MANY_INVITES, form, of_a_body
from services.gateway.schemas import AcceptedInvite, Invite, Invites, Joined, NewInvite, ShownInvite

_NO_SUCH_PREFIX = (404, "not_found", "There is no invite of that prefix.")
_INVALID_PREFIX = (422, "invalid_request", "path.prefix: String should match pattern '^[a-z0-9]{8}$'.")

Prefix = Annotated[str, Path(pattern=f"^{PREFIX_PATTERN}$", description="What stands between `m3i_` and the next `_`.")]


def invites(office: Office, settings: Settings) -> APIRouter:
    router = APIRouter(tags=["threads"])
    of_a_form = (*of_a_body(settings.body_limit), NO_DATABASE)

    @router.get(
        "/api/threads/{thread_id}/invites",
        summary="The invites to a thread that are good",
        responses=documented(INVALID_THREAD, NO_DATABASE),
    )
    async def good(key: Key) -> Invites:
        """One is, until it expires or is taken back, as long as whoever made it may let others in."""
        found = await office.invites.invites(key)
        return Invites(thread_id=thread_id_of(key), invites=[Invite.model_validate(one) for one in found])

    @router.post(
        "/api/threads/{thread_id}/invites",
        summary="Make an invite to a thread",
        status_code=201,
        dependencies=[Depends(form)],
        responses=documented(*of_a_form, (422, "invalid_request", NewInvite.told()), TOO_MANY_INVITES),
    )
    async def make(key: Key, asked: NewInvite, principal: Who, address: Address) -> ShownInvite:
        """For any number of people. The invite is shown this once."""
        lasts = timedelta(seconds=asked.expires_in)
        made = await office.invites.make(principal, thread_id_of(key), asked.role, lasts, address=address)
        return ShownInvite.model_validate(made)

    @router.delete(
        "/api/threads/{thread_id}/invites/{prefix}",
        summary="Take an invite back",
        status_code=204,
        responses=documented(_NO_SUCH_PREFIX, _INVALID_PREFIX, NO_DATABASE),
    )
    async def take_back(key: Key, prefix: Prefix, principal: Who, address: Address) -> None:
        """Whoever accepted it stays a member."""
        await office.invites.take_back(principal, thread_id_of(key), prefix, address=address)

    @router.post(
        "/api/invites",
        summary="Accept an invite",
        dependencies=[Depends(form)],
        responses=documented(*of_a_form, (422, "invalid_request", AcceptedInvite.told()), NO_INVITE),
    )
    async def accept(asked: AcceptedInvite, principal: Who, address: Address) -> Joined:
        """You are a member of its thread from then on; where you may more there already, that stays."""
        joined = await office.invites.accept(principal, asked.invite.get_secret_value(), address=address)
        return Joined.model_validate(joined)

    return router
