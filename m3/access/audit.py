"""What was refused, on its way into the audit.

What is done is written down with the change itself, in its transaction. What is refused changes nothing, and may be
asked for a thousand times a second: it waits in memory, alike with alike, and nobody waits for it. What a process that
is killed has not written down yet is lost.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from time import monotonic

import structlog

from m3.access.principals import Principal
from m3.addresses import ASKED_FROM
from m3.errors import Denied, StoreUnavailable, Unstorable
from m3.store import Store
from m3.store.audit import Entry, write
from m3.tasks import background

#: Most entries that wait. Beyond them only their number is written down.
MAX_WAITING = 1_000
#: Seconds in which what is alike becomes one entry. The first of it is written at once.
GATHER = 10.0
#: Seconds that the last of it may take at the end.
LAST_WORDS = 2.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Alike:
    """The first of its kind, when that was, and how many there were."""

    entry: Entry
    since: float
    times: int = 1

    def told(self) -> Entry:
        if self.times == 1:
            return self.entry
        return replace(self.entry, detail=f"{self.entry.detail}, {self.times} times".removeprefix(", "))


class Audit:
    """Its methods neither wait nor fail."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[Entry, _Alike] = {}  # by what it is but for its target, which may be another every time
        self._left_out: Counter[str] = Counter()  # how many, by tenant
        self._noted = asyncio.Event()
        self._ending = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def open(cls, store: Store) -> AsyncIterator["Audit"]:
        """What waits is written down inside the block, and at its end."""
        audit = cls(store)
        try:
            async with background("audit", audit._keep_writing(), stop=audit._end, grace=LAST_WORDS):
                yield audit
        finally:
            if audit._waiting:
                log.error(
                    "refusals were not written down", number=sum(alike.times for alike in audit._waiting.values())
                )

    def refused(self, principal: Principal, what: str, error: Denied, target: str = "") -> None:
        """Somebody who is known asked for something that they may not do."""
        detail = f"{what}: {error.code}"
        self.note(Entry(principal.tenant, principal.name or "", "refused", target, "refused", ASKED_FROM.get(), detail))

    def note(self, entry: Entry) -> None:
        self._gather(_Alike(entry, monotonic()))
        self._noted.set()

    def _gather(self, alike: _Alike) -> None:
        kind = replace(alike.entry, target="")
        if kind in self._waiting:
            self._waiting[kind].times += alike.times
        elif len(self._waiting) < MAX_WAITING:
            self._waiting[kind] = alike
        else:
            self._left_out[alike.entry.tenant] += alike.times

    def _end(self) -> None:
        self._ending.set()
        self._noted.set()

    async def _keep_writing(self) -> None:
        while not self._ending.is_set():
            await self._noted.wait()
            await self._write_down()
            with suppress(TimeoutError):
                async with asyncio.timeout(GATHER):
                    await self._ending.wait()
        await self._write_down()

    async def _write_down(self) -> None:
        """What cannot be written just now goes on waiting."""
        waiting, self._waiting = self._waiting, {}
        left_out, self._left_out = self._left_out, Counter()
        self._noted.clear()
        if not waiting:
            return
        now = monotonic()
        alikes = list(waiting.values())
        for tenant, times in left_out.items():
            others = Entry(tenant, "", "refused", outcome="refused", detail="not told one by one")
            alikes.append(_Alike(others, now, times))
        try:
            await write(self._store.ask, [alike.told() for alike in alikes], [now - alike.since for alike in alikes])
        except Unstorable:
            log.exception("refusals cannot be written down", number=len(alikes))
        except BaseException as error:
            for alike in waiting.values():
                self._gather(alike)
            self._left_out += left_out
            if not isinstance(error, StoreUnavailable):
                raise
            self._noted.set()
            log.warning("refusals wait to be written down", reason=str(error))
