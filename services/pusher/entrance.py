"""Who may open a socket, and what they may do with it: asked before it is accepted, and of all that it says."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ValidationError
from starlette.websockets import WebSocket

from m3.access.access import Access
from m3.access.limits import Limits
from m3.access.principals import Principal
from m3.access.rules import SOCKET, Action
from m3.addresses import counted_as
from m3.events import ANYONE, Nickname, Number, OutsideSource, ThreadId
from m3.settings import Settings
from m3.tenants import key_of
from m3.web import Refusal, problem_sentence
from m3.web.origins import NOT_OF_ORIGINS, is_foreign
from services.pusher.close_codes import Close, Closed
from services.pusher.outbox import Outbox

PATH = re.compile("/ws/chat/(.*)")

(_TO_OPEN,) = SOCKET["open"]


class _Asked(BaseModel):
    """How a socket asks to be opened: its path and query."""

    thread_id: ThreadId
    after: Number | None = None
    events: Literal["all"] | None = None
    client: Nickname = ANYONE


@dataclass(frozen=True, slots=True)
class Opening:
    """A socket that may be opened. ``key``: its thread's; ``client``: the name that it gave itself."""

    access: Access
    limits: Limits
    principal: Principal
    key: str
    client: str
    address: str
    after: int | None
    all_events: bool

    @property
    def name(self) -> str:
        """What others in the thread know it by."""
        return self.principal.name or self.client

    async def check(self, action: Action) -> None:
        """Raises Denied and StoreUnavailable."""
        await self.access.check(self.principal, action, self.key)

    def source_of(self, source: OutsideSource, *, told: bool) -> OutsideSource:
        """Raises Forbidden where the message names one that is not its sender's."""
        return self.access.source_of(self.principal, source, told=told)

    async def count_message(self) -> None:
        """Raises TooOften."""
        await self.limits.hit("socket_message", self.principal, self.address)


class Entrance:
    def __init__(self, access: Access, limits: Limits, settings: Settings) -> None:
        self._access = access
        self._limits = limits
        self._settings = settings
        self._addresses: Counter[str] = Counter()

    async def opening(self, websocket: WebSocket) -> Opening:
        """What the socket may be opened as. Raises Refusal, Denied and StoreUnavailable."""
        path = PATH.fullmatch(websocket.scope["path"])
        if path is None:
            raise Refusal(404, "not_found", "Not Found.")
        try:
            asked = _Asked.model_validate({**websocket.query_params, "thread_id": path[1]})
        except ValidationError as error:
            raise Refusal(422, "invalid_request", problem_sentence(error.errors(include_input=False))) from None
        if is_foreign(websocket):
            raise Refusal(
                403, "foreign_origin", f"A page of another host or port may not open a socket here. {NOT_OF_ORIGINS}"
            )
        principal = self._access.admissions.shared(await self._principal(websocket))
        address = websocket.client.host if websocket.client else ""
        await self._limits.hit("socket", principal, address)
        key = key_of(principal.tenant, asked.thread_id)
        await self._access.check(principal, _TO_OPEN, key)
        return Opening(
            access=self._access,
            limits=self._limits,
            principal=principal,
            key=key,
            client=asked.client,
            address=address,
            after=asked.after,
            all_events=asked.events == "all",
        )

    async def _principal(self, websocket: WebSocket) -> Principal:
        """Last of all that is looked at but for the thread: a ticket is good once."""
        tickets = websocket.query_params.getlist("ticket")
        if not (tickets and self._access.required):
            return await self._access.identify(websocket.scope["headers"])
        if len(tickets) > 1 or "authorization" in websocket.headers:
            raise Refusal(422, "invalid_request", "There must be one credential: a ticket or an Authorization header.")
        return await self._access.redeem(tickets[0])

    @contextmanager
    def inside(self, opening: Opening, outbox: Outbox) -> Iterator[None]:
        """The socket is open inside the block, in which the database shows its tenant's alone, and closed where its
        principal may not read any more. Raises Closed where its address has no socket left."""
        address = counted_as(opening.address)
        if self._addresses[address] == self._settings.sockets_per_address:
            raise Closed(Close.ADDRESS_FULL)
        self._addresses[address] += 1
        self._access.admissions.add(opening.principal, opening.key, outbox)
        try:
            with self._access.speaking_for(opening.principal):
                yield
        finally:
            self._access.admissions.remove(opening.principal, outbox)
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]
