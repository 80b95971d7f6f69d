"""By whose authority each socket is open, and when that ends. Free of sockets."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain, islice
from typing import NoReturn

import structlog

from m3.access.principals import Principal
from m3.access.rules import Action
from m3.errors import StoreUnavailable
from services.pusher.close_codes import Close
from services.pusher.outbox import Outbox

#: Seconds between looks at whether those who have sockets may still read.
RECHECK = 20.0
#: Seconds between attempts while the database is away.
RETRY_INTERVAL = 1.0
#: Most that is asked at a time, each a principal in a thread.
PAGE = 1_000

StillMay = Callable[[Sequence[tuple[Principal, Action, str]]], Awaitable[list[bool]]]

log = structlog.get_logger(__name__)


class _Admitted:
    """A principal's sockets, each with the key of its thread. ``end``: of its authority, where that is known."""

    __slots__ = ("end", "principal", "sockets")

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.sockets: dict[Outbox, str] = {}
        self.end: asyncio.TimerHandle | None = None


class Admissions:
    """``still_may``: whether each principal may still do that in that thread. Raises StoreUnavailable."""

    def __init__(self, still_may: StillMay) -> None:
        self._still_may = still_may
        self._admitted: dict[Principal, _Admitted] = {}

    def shared(self, principal: Principal) -> Principal:
        """The principal as its sockets here have it, which are many, and it the same."""
        admitted = self._admitted.get(principal)
        return admitted.principal if admitted else principal

    def add(self, principal: Principal, key: str, outbox: Outbox) -> None:
        """A socket of the principal was opened in the thread. Anyone's authority does not end."""
        if principal.id is None:
            return
        admitted = self._admitted.get(principal)
        if admitted is None:
            admitted = self._admitted[principal] = _Admitted(principal)
            if principal.expires is not None:
                left = max(0.0, principal.expires - time.time())
                admitted.end = asyncio.get_running_loop().call_later(left, _expire, admitted)
        admitted.sockets[outbox] = key

    def remove(self, principal: Principal, outbox: Outbox) -> None:
        """The socket is gone."""
        admitted = self._admitted.get(principal)
        if admitted is None:
            return
        del admitted.sockets[outbox]
        if not admitted.sockets:
            del self._admitted[principal]
            if admitted.end is not None:
                admitted.end.cancel()

    async def look_again(self, every: float) -> NoReturn:
        """Look every so many seconds, and again soon while the database is away: nobody can be told apart then, and all
        sockets stay."""
        while True:
            await asyncio.sleep(every)
            asked = iter([(one.principal, key) for one in self._admitted.values() for key in {*one.sockets.values()}])
            while page := list(islice(asked, PAGE)):
                try:
                    await self._look(page)
                except StoreUnavailable as error:
                    log.warning("not known who may still read", reason=str(error))
                    asked = chain(page, asked)
                    await asyncio.sleep(min(RETRY_INTERVAL, every))

    async def _look(self, page: Sequence[tuple[Principal, str]]) -> None:
        may = await self._still_may([(principal, Action.READ, key) for principal, key in page])
        for (principal, key), still in zip(page, may, strict=True):
            if not still and (admitted := self._admitted.get(principal)):
                for outbox, its_key in admitted.sockets.items():
                    if its_key == key:
                        outbox.close(Close.NO_LONGER_ALLOWED)


def _expire(admitted: _Admitted) -> None:
    for outbox in admitted.sockets:
        outbox.close(Close.SIGN_IN_AGAIN)
