"""Making threads, and who is what in them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header
from pydantic.json_schema import SkipJsonSchema

from m3.access.office import Office
from m3.access.rules import MemberKind
from m3.settings import Settings
from m3.store.directory import Member
from m3.tenants import thread_id_of
from m3.web import documented
from services.gateway import schemas
from services.gateway.asking import Address, Key, Who
from services.gateway.guards import (
    INVALID_NAME,
    INVALID_THREAD,
    LAST_OWNER,
    NO_DATABASE,
    NO_MEMBER,
    NO_SUCH_NAME,
    TAKEN,
    form,
    of_a_body,
)
from services.gateway.schemas import (
    Members,
    NewMember,
    NewThread,
    Thread,
    VisibilityOfThread,
    VisibilityRequest,
)

#: RFC 9110, 13.1.1. There are no ETags here that it could name.
IfMember = Annotated[
    Literal["*"] | SkipJsonSchema[None], Header(description="`*`: only where there is a member of that name.")
]

_INVALID_VISIBILITY = (422, "invalid_request", "visibility: Input should be 'private' or 'open'.")


def members(office: Office, settings: Settings) -> APIRouter:
    router = APIRouter(tags=["threads"])
    of_a_form = (*of_a_body(settings.body_limit), NO_DATABASE)

    @router.post(
        "/api/threads",
        summary="Make a thread",
        status_code=201,
        dependencies=[Depends(form)],
        responses=documented(*of_a_form, _INVALID_VISIBILITY, TAKEN),
    )
    async def make(asked: NewThread, principal: Who, address: Address) -> Thread:
        """It is yours. It is given its id, which none but operators may say."""
        made = await office.memberships.make_thread(principal, asked.thread_id, asked.visibility, address=address)
        return Thread.model_validate(made)

    @router.get(
        "/api/threads/{thread_id}/members",
        summary="Who is what in a thread",
        responses=documented(INVALID_THREAD, NO_DATABASE),
    )
    async def who(key: Key) -> Members:
        found = await office.memberships.members(key)
        return Members(thread_id=thread_id_of(key), members=[schemas.Member.model_validate(member) for member in found])

    @router.put(
        "/api/threads/{thread_id}/members/{name}",
        summary="Make somebody a member, or another kind of member",
        dependencies=[Depends(form)],
        responses=documented(
            *of_a_form, (422, "invalid_request", NewMember.told()), NO_SUCH_NAME, LAST_OWNER, NO_MEMBER
        ),
    )
    async def admit(  # noqa: PLR0913, PLR0917  # a header beside what the others take
        key: Key, name: str, asked: NewMember, principal: Who, address: Address, if_match: IfMember = None
    ) -> schemas.Member:
        """None but operators let a program in."""
        member = Member(name, asked.kind, asked.role)
        admitted = await office.memberships.admit(
            principal, thread_id_of(key), member, if_member=if_match is not None, address=address
        )
        return schemas.Member.model_validate(admitted)

    @router.delete(
        "/api/threads/{thread_id}/members/{name}",
        summary="Have somebody be no member any more",
        status_code=204,
        responses=documented(NO_SUCH_NAME, LAST_OWNER, INVALID_NAME, NO_DATABASE),
    )
    async def dismiss(key: Key, name: str, principal: Who, address: Address, kind: MemberKind = "person") -> None:
        """Yourself, or as an owner others. Open sockets of theirs are closed within a minute. The last owner stays."""
        await office.memberships.dismiss(principal, thread_id_of(key), name, kind, address=address)

    @router.put(
        "/api/threads/{thread_id}/visibility",
        summary="Say who finds a thread",
        dependencies=[Depends(form)],
        responses=documented(*of_a_form, _INVALID_VISIBILITY),
    )
    async def change_visibility(
        key: Key, asked: VisibilityRequest, principal: Who, address: Address
    ) -> VisibilityOfThread:
        """`private`: its members; `open`: everybody with an account."""
        thread_id = thread_id_of(key)
        await office.memberships.change_visibility(principal, thread_id, asked.visibility, address=address)
        return VisibilityOfThread(thread_id=thread_id, visibility=asked.visibility)

    return router
