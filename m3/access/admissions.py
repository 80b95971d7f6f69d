"""Those whose right is looked at again, as long as they make use of it: open sockets, and who waits for a reply."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain, islice
from typing import NoReturn, Protocol

import structlog

from m3.access.principals import Principal
from m3.access.rules import Action
from m3.errors import Denied, Expired, StoreUnavailable

#: Seconds between looks at whether those who were let in may still read.
RECHECK = 20.0
#: Seconds between attempts while the database is away.
RETRY_INTERVAL = 1.0
#: Most that is asked at a time, each a principal in a thread.
PAGE = 1_000

Refusals = Callable[[Sequence[tuple[Principal, Action, str]]], Awaitable[list[Denied | None]]]

log = structlog.get_logger(__name__)


class Admitted(Protocol):
    """What somebody was let in to read with."""

    def end(self, why: Denied) -> None:
        """They may not read any more. It is told at once and does not wait; what it ends may go later."""


class _Authority:
    """A principal's, and what goes on by it, each with the key of its thread. ``end``: of it, where that is known."""

    __slots__ = ("admitted", "end", "principal")

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.admitted: dict[Admitted, str] = {}
        self.end: asyncio.TimerHandle | None = None

    def expire(self) -> None:
        for one in self.admitted:
            one.end(Expired())


class Admissions:
    """``refusals``: why each principal may not do that in that thread any more. Raises StoreUnavailable."""

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals
        self._authorities: dict[Principal, _Authority] = {}

    def shared(self, principal: Principal) -> Principal:
        """The principal as what it was let in with has it, which is much, and it the same."""
        authority = self._authorities.get(principal)
        return authority.principal if authority else principal

    def add(self, principal: Principal, key: str, admitted: Admitted) -> None:
        """The principal reads in the thread of that key from now on. Anyone's authority does not end."""
        if principal.id is None:
            return
        authority = self._authorities.get(principal)
        if authority is None:
            authority = self._authorities[principal] = _Authority(principal)
            if principal.expires is not None:
                left = max(0.0, principal.expires - time.time())
                authority.end = asyncio.get_running_loop().call_later(left, authority.expire)
        authority.admitted[admitted] = key

    def remove(self, principal: Principal, admitted: Admitted) -> None:
        """It is gone."""
        authority = self._authorities.get(principal)
        if authority is None:
            return
        del authority.admitted[admitted]
        if not authority.admitted:
            del self._authorities[principal]
            if authority.end is not None:
                authority.end.cancel()

    async def look_again(self, every: float) -> NoReturn:
        """Look every so many seconds, and again soon while the database is away: nobody can be told apart then, and all
        stay."""
        while True:
            await asyncio.sleep(every)
            asked = iter(
                [(one.principal, key) for one in self._authorities.values() for key in {*one.admitted.values()}]
            )
            while page := list(islice(asked, PAGE)):
                try:
                    await self._look(page)
                except StoreUnavailable as error:
                    log.warning("not known who may still read", reason=str(error))
                    asked = chain(page, asked)
                    await asyncio.sleep(min(RETRY_INTERVAL, every))

    async def _look(self, page: Sequence[tuple[Principal, str]]) -> None:
        refusals = await self._refusals([(principal, Action.READ, key) for principal, key in page])
        for (principal, key), why in zip(page, refusals, strict=True):
            if why is not None and (authority := self._authorities.get(principal)):
                for admitted, its_key in authority.admitted.items():
                    if its_key == key:
                        admitted.end(why)
