"""Who waits for a reply: for as long as they may read it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from m3.access.access import Access
from m3.access.principals import Principal
from m3.errors import Denied
from m3.web import refusal_of


class _Waiting:
    """``why``: they may not wait any more. ``block``: what is broken off then."""

    def __init__(self, block: asyncio.Timeout) -> None:
        self._block = block
        self.why: Denied | None = None

    def end(self, why: Denied) -> None:
        if self.why is None:
            self.why = why
            self._block.reschedule(asyncio.get_running_loop().time())


@asynccontextmanager
async def while_allowed(access: Access, principal: Principal, key: str, message_id: UUID) -> AsyncIterator[None]:
    """The principal waits inside the block for what becomes of the message, which was recorded in the thread of that
    key. Raises Refusal where they may not read there any more, and breaks the block off."""
    if principal.id is None:
        yield
        return
    waiting: _Waiting | None = None
    try:
        async with asyncio.timeout(None) as block:
            waiting = _Waiting(block)
            access.admissions.add(principal, key, waiting)
            try:
                yield
            finally:
                access.admissions.remove(principal, waiting)
    except TimeoutError:
        if waiting is None or waiting.why is None:
            raise
    if waiting.why is not None:
        raise refusal_of(waiting.why, message_id)
