"""The turn that runs in a thread, for whoever comes in the middle of it."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from m3 import topology
from m3.bus import Bus, Subscription
from m3.errors import BusError
from m3.events import MessageRecorded, ReplyGrew, RetellingAsked, ThreadEvent, TurnEnded, TurnNews, TurnStarted, encode

#: Characters of a reply that are kept, as many as an agent says. Of one that is longer, who comes hears only the rest.
KEPT = 64 * 1024


class Retellings:
    """Asks the agents that are at threads to tell a subscription their turns so far; what they say meanwhile follows in
    order. To be asked for once it is bound to a thread and has its key, and again when it was interrupted. News, which
    may be lost, and that nobody waits for: ``run`` asks, beside all else."""

    def __init__(self, bus: Bus, subscription: Subscription) -> None:
        self._bus = bus
        self._subscription = subscription
        self._wanted: dict[str, None] = {}  # at most the threads that it is bound to
        self._changed = asyncio.Event()

    def want(self, *thread_ids: str) -> None:
        self._wanted.update(dict.fromkeys(thread_ids))
        self._changed.set()

    async def run(self) -> NoReturn:
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._wanted:
                thread_id, _ = self._wanted.popitem()
                asked = RetellingAsked(thread_id=thread_id, origin=self._subscription.name)
                with suppress(BusError):
                    await self._bus.publish(topology.asked_to_retell(thread_id), encode([asked]))


class RunningTurn:
    """As far as it was heard from its start, without a gap: half a reply is worth nothing to who cannot tell which
    half."""

    def __init__(self) -> None:
        self._started: TurnStarted | None = None
        self._texts: list[str] = []
        self._length = 0
        self.pieces = 0  # of what was said

    @property
    def so_far(self) -> list[TurnNews]:
        """Its start, and what was said as one piece; nothing where no turn runs, or some of it was missed."""
        if self._started is None:
            return []
        told: list[TurnNews] = [self._started.model_copy(update={"again": True})]
        if self._texts:
            self._texts = ["".join(self._texts)]
            turn = {name: getattr(self._started, name) for name in ("thread_id", "turn_id", "reply_id")}
            told.append(ReplyGrew(**turn, index=0, pieces=self.pieces, text=self._texts[0]))
        return told

    def hear(self, news: TurnNews) -> Sequence[TurnNews]:
        """Returns what of it is new to those who were told of the turn what was told here before."""
        known = self._started
        if isinstance(news, TurnStarted):
            if known and news.again and news.turn_id == known.turn_id:
                return []
            self._begin(news)
        elif known and news.turn_id == known.turn_id:
            if isinstance(news, TurnEnded):
                self.forget()
            elif news.index + news.pieces <= self.pieces:
                return []
            elif 0 == news.index < self.pieces:  # told again, with pieces that were missed
                self._begin(known)
                self._grow(news)
                return [known, news]
            else:
                self._grow(news)
        return [news]

    def see(self, event: ThreadEvent) -> None:
        """What becomes of its messages ends a turn too, where the agent's own word of that was missed."""
        message, known = event.message, self._started
        if known is None:
            return
        if isinstance(event, MessageRecorded):
            is_over = message.message_id == known.reply_id
        else:
            is_over = message.message_id in known.in_reply_to and message.fate != "pending"
        if is_over:
            self.forget()

    def forget(self) -> None:
        self._started = None
        self._texts, self._length, self.pieces = [], 0, 0

    def _begin(self, started: TurnStarted) -> None:
        self.forget()
        self._started = started

    def _grow(self, piece: ReplyGrew) -> None:
        self._length += len(piece.text)
        if piece.index == self.pieces and self._length <= KEPT:
            self._texts.append(piece.text)
            self.pieces += piece.pieces
        else:
            self.forget()
