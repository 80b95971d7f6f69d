"""Tells whoever watches a thread what a turn does, while it does it. News that may be lost: the reply is recorded."""

import asyncio
from contextlib import suppress
from uuid import UUID

from uuid_utils.compat import uuid7

from m3 import topology
from m3.bus import Bus
from m3.errors import BusError, StoreUnavailable
from m3.events import ReplyGrew, TurnEnded, TurnNews, TurnOutcome, TurnStarted, encode
from m3.retelling import RunningTurn
from m3.sealing import Content
from m3.topology import Route
from services.agent.spoken import Spoken

#: Seconds for which text is gathered, once its first piece is out: each piece costs every watcher a frame.
GATHER = 0.05


class Telling:
    """What is told of one turn, whose text comes in through ``spoken``."""

    def __init__(  # noqa: PLR0913
        self,
        bus: Bus,
        content: Content,
        thread_id: str,
        *,
        turn_id: UUID,
        reply_id: UUID,
        in_reply_to: tuple[UUID, ...],
    ) -> None:
        self.spoken = Spoken(on_growth=self._hear)
        self.first_text: float | None = None  # by the loop's clock
        self._bus = bus
        self._content = content
        self.thread_id = thread_id
        self.turn_id = turn_id
        self.reply_id = reply_id
        self.in_reply_to = in_reply_to
        self._attempt_id = turn_id  # of each attempt another, so that none is taken for a part of the other
        self._asked: set[Route] = set()  # where all of it is asked for
        self._grown = asyncio.Event()
        self._finished = asyncio.Event()

    async def run(self) -> None:
        """Tell the start and each piece of text, until ``finish``."""
        while not await self._tell_attempt():
            self._attempt_id = uuid7()

    def retell(self, to: Route) -> None:
        """Have ``run`` tell there all that it has told."""
        self._asked.add(to)
        self._grown.set()

    async def _tell_attempt(self) -> bool:
        """Tell one attempt of the model at the reply; False if it began anew, which voids what was told."""
        attempt, told = self.spoken.restarts, RunningTurn()
        started = TurnStarted(
            thread_id=self.thread_id,
            turn_id=self._attempt_id,
            reply_id=self.reply_id,
            in_reply_to=self.in_reply_to,
        )
        await self._publish(*told.hear(started))
        while True:
            await self._grown.wait()
            self._grown.clear()
            last = self._finished.is_set()
            while self._asked:  # before the next piece, which follows it
                await self._publish(*told.so_far(), to=self._asked.pop())
            if self.spoken.restarts != attempt:
                self._grown.set()  # for what the new attempt has said by now
                return False
            if text := self.spoken.take_new():
                piece = ReplyGrew(
                    thread_id=self.thread_id,
                    turn_id=self._attempt_id,
                    reply_id=self.reply_id,
                    index=told.pieces,
                    text=text,
                )
                await self._publish(*told.hear(piece))
            if last:
                return True
            with suppress(TimeoutError):
                async with asyncio.timeout(GATHER):
                    await self._finished.wait()

    def finish(self) -> None:
        """Have ``run`` tell what there is and end."""
        self._finished.set()
        self._grown.set()

    async def end(self, outcome: TurnOutcome, reason: str | None = None) -> None:
        """Tell that the turn is over."""
        await self._publish(
            TurnEnded(
                thread_id=self.thread_id,
                turn_id=self._attempt_id,
                reply_id=self.reply_id,
                outcome=outcome,
                reason=reason,
            )
        )

    async def _publish(self, *news: TurnNews, to: Route | None = None) -> None:
        with suppress(BusError, StoreUnavailable):
            told = await self._content.sealed(news)
            await self._bus.publish(to or topology.thinking(self.thread_id), encode(told))

    def _hear(self) -> None:
        self.first_text = self.first_text or asyncio.get_running_loop().time()
        self._grown.set()
