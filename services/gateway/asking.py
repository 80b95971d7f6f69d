"""Who asks, and whether they may: for every route alike, after it was found and before its handler runs."""

from contextlib import suppress
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, Request
from pydantic import TypeAdapter, ValidationError
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from m3.access.access import Access
from m3.access.limits import Limits, What
from m3.access.principals import Principal
from m3.access.rules import OPEN_TO_ALL, ROUTES, Action, about_a_thread
from m3.errors import StartError, UnknownMessage, UnknownThread
from m3.events import Message, ThreadId
from m3.store import Store
from m3.tenants import key_of, tenant_of
from m3.web.browsers import tell_allowance

#: What is asked past what is remembered. Who may do what is changed likewise, which Directory.change_by sees to.
PAST_THE_MEMORY = frozenset((Action.CONFIGURE,))

#: What is bounded for each principal and for each address.
COUNTED: dict[tuple[str, str], What] = {
    ("POST", "/api/chat"): "post",
    ("POST", "/api/messages/{message_id}/retry"): "post",
    ("POST", "/api/threads/{thread_id}/messages"): "batch",
    ("POST", "/api/ws-ticket"): "ticket",
    ("POST", "/api/threads/{thread_id}/cancel"): "change",
    ("PUT", "/api/threads/{thread_id}/settings"): "change",
    ("POST", "/api/threads"): "change",
    ("PUT", "/api/threads/{thread_id}/members/{name}"): "change",
    ("DELETE", "/api/threads/{thread_id}/members/{name}"): "change",
    ("PUT", "/api/threads/{thread_id}/visibility"): "change",
    ("POST", "/api/threads/{thread_id}/invites"): "change",
    ("DELETE", "/api/threads/{thread_id}/invites/{prefix}"): "change",
    ("POST", "/api/invites"): "change",
    ("POST", "/api/logout"): "change",
    ("POST", "/api/password"): "change",
    ("POST", "/api/users"): "change",
    ("PUT", "/api/users/{name}"): "change",
    ("DELETE", "/api/users/{name}"): "change",
    ("POST", "/api/users/{name}/password"): "change",
    ("POST", "/api/keys"): "change",
    ("DELETE", "/api/keys/{prefix}"): "change",
}

_PRINCIPAL = "m3.principal"
_thread_id: TypeAdapter[str] = TypeAdapter(ThreadId)


def ask_who(app: FastAPI, access: Access, limits: Limits) -> None:
    """Put the question before every route of the app, by its rule. Raises StartError where one has none, or changes
    something and is in no limit; what is shown to sign in with is counted where it is looked at."""
    for route in app.routes:
        if not isinstance(route, Route | Mount):
            raise StartError(f"{route!r} is no route that a rule could be put before.")
        method, *others = (getattr(route, "methods", None) or {"GET"}) - {"HEAD"}
        place = method, route.path
        if others or place not in ROUTES:
            raise StartError(f"No rule says who may {method} {route.path}.")
        if method != "GET" and place not in COUNTED and not ROUTES[place] <= OPEN_TO_ALL:
            raise StartError(f"No limit says how often one may {method} {route.path}.")
        route.app = _Asked(route.app, access, ROUTES[place], limits, COUNTED.get(place))


class _Asked:
    """The app of one route, for those who may use it. Everything in it speaks for its caller's tenant."""

    def __init__(
        self, app: ASGIApp, access: Access, actions: frozenset[Action], limits: Limits, counted: What | None
    ) -> None:
        self._app = app
        self._access = access
        self._actions = actions
        self._limits = limits
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._actions <= OPEN_TO_ALL:
            await self._app(scope, receive, send)
            return
        principal = await self._access.identify(scope["headers"])
        if self._counted:
            tell_allowance(scope, await self._limits.hit(self._counted, principal, address_of(scope)))
        with self._access.speaking_for(principal):
            await self._check(principal, scope)
            scope[_PRINCIPAL] = principal
            await self._app(scope, receive, send)

    async def _check(self, principal: Principal, scope: Scope) -> None:
        """Where the path names no thread but the action is about one, the handler sees to it, which knows which."""
        action = self._action_of(principal)
        if not about_a_thread(action):
            self._access.check_without_thread(principal, action)
        elif (named := scope["path_params"].get("thread_id")) is not None:
            try:
                thread_id = _thread_id.validate_python(named)
            except ValidationError:  # which the handler says by the same rule
                return
            check = self._access.check_anew if action in PAST_THE_MEMORY else self._access.check
            await check(principal, action, key_of(principal.tenant, thread_id))

    def _action_of(self, principal: Principal) -> Action:
        """Of speaking and feeding the one that this principal could; of leaving and having others leave the first, for
        the change itself asks for the other."""
        if len(self._actions) == 1:
            (action,) = self._actions
            return action
        if Action.LEAVE in self._actions:
            return Action.LEAVE
        return Action.FEED if principal.kind == "program" else Action.SPEAK


def address_of(scope: Scope) -> str:
    """The client's; where it comes through one of TRUSTED_PROXIES what that says."""
    client = scope.get("client")
    return client[0] if client else ""


async def _address(request: Request) -> str:
    return address_of(request.scope)


#: Where the caller is.
Address = Annotated[str, Depends(_address)]


def principal_of(request: Request) -> Principal:
    principal: Principal = request.scope[_PRINCIPAL]
    return principal


async def _who(request: Request) -> Principal:
    return principal_of(request)


#: Who asks, known and let in.
Who = Annotated[Principal, Depends(_who)]


async def _key(thread_id: ThreadId, principal: Who) -> str:
    return key_of(principal.tenant, thread_id)


#: The key of the thread in the path, in which the caller may do what the route is for.
Key = Annotated[str, Depends(_key)]


async def thread_for(access: Access, principal: Principal, action: Action, thread_id: str) -> str:
    """The key of a thread that only the body names. Raises UnknownThread, Forbidden or StoreUnavailable."""
    key = key_of(principal.tenant, thread_id)
    await access.check(principal, action, key)
    return key


async def message_for(access: Access, principal: Principal, action: Action, message_id: UUID, store: Store) -> Message:
    """The message of that id, in whose thread the caller may do this. Raises UnknownMessage, the same for one that is
    not there and one that they may not know of, Forbidden or StoreUnavailable."""
    message = await store.message(message_id)
    with suppress(UnknownThread):
        if message is not None and tenant_of(message.thread_id) == principal.tenant:
            await access.check(principal, action, message.thread_id)
            return message
    raise UnknownMessage("There is no such message.")
