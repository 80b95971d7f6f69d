"""The turn that runs in a thread, for whoever comes in the middle of it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NoReturn

from m3 import topology
from m3.bus import Bus, Subscription
from m3.errors import BusError
from m3.events import MessageRecorded, ReplyGrew, RetellingAsked, ThreadEvent, TurnEnded, TurnNews, TurnStarted, encode

#: Characters of a reply that are kept, as many as an agent says. Of one that is longer, who comes hears only the rest.
KEPT = 64 * 1024


class Retellings:
    """Asks the agents that are at threads to tell a subscription their turns so far; what they say meanwhile follows in
    order. To be asked for once it is bound to a thread and has its key, and again where something may have been missed.
    News, which may be lost, and that nobody waits for: ``run`` asks, beside all else."""

    def __init__(self, bus: Bus, subscription: Subscription) -> None:
        self._bus = bus
        self._subscription = subscription
        self._wanted: dict[str, None] = {}
        self._wanted_more = asyncio.Event()

    def want(self, *thread_ids: str) -> None:
        self._wanted.update(dict.fromkeys(thread_ids))
        self._wanted_more.set()

    async def run(self) -> NoReturn:
        while True:
            await self._wanted_more.wait()
            self._wanted_more.clear()
            while self._wanted:
                thread_id, _ = self._wanted.popitem()
                asked = RetellingAsked(thread_id=thread_id, origin=self._subscription.name)
                try:
                    await self._bus.publish(topology.asked_to_retell(thread_id), encode([asked]))
                except BusError:  # it would be so of the others too, and take long; they hear their turns from then on
                    self._wanted.clear()


class RunningTurn:
    """As far as it was heard from its start, without a gap: half a reply is worth nothing to who cannot tell which
    half. ``on_gap`` is called where some of it was missed."""

    def __init__(self, on_gap: Callable[[], None] = lambda: None) -> None:
        self._on_gap = on_gap
        self._started: TurnStarted | None = None
        self._texts: list[str] = []
        self._length = 0
        self.pieces = 0  # of what was said

    def so_far(self) -> list[TurnNews]:
        """Its start, and what was said as one piece; nothing where no turn runs, or some of it was missed."""
        turn = self._started
        if turn is None:
            return []
        told: list[TurnNews] = [turn.model_copy(update={"again": True})]
        if self._texts:
            self._texts = ["".join(self._texts)]
            told.append(
                ReplyGrew(
                    thread_id=turn.thread_id,
                    turn_id=turn.turn_id,
                    reply_id=turn.reply_id,
                    index=0,
                    pieces=self.pieces,
                    text=self._texts[0],
                )
            )
        return told

    def hear(self, news: TurnNews) -> Sequence[TurnNews]:
        """Returns what of it is new to those who were told of the turn what was told here before."""
        turn = self._started
        if turn and news.turn_id != turn.turn_id:
            return self._hear_another(turn, news)
        if isinstance(news, TurnStarted):
            if turn and news.again:
                return []
            self._begin(news)
        elif isinstance(news, TurnEnded):
            self.forget()
        elif turn and news.index + news.pieces <= self.pieces:
            return []
        elif turn and 0 == news.index < self.pieces:  # told again, with pieces that were missed
            self._begin(turn)
            self._grow(news)
            return [turn, news]
        elif turn:
            self._grow(news)
        return [news]

    def _hear_another(self, turn: TurnStarted, news: TurnNews) -> Sequence[TurnNews]:
        """News of another turn than the one that is known to run. Ids are in the order of time (RFC 9562, 5.7)."""
        if isinstance(news, TurnStarted) and not news.again:
            self._begin(news)
        elif news.turn_id < turn.turn_id:  # by an agent that has lost the thread to another
            return []
        elif isinstance(news, TurnStarted):
            self._begin(news)
        else:  # whose start was missed
            self._miss()
        return [news]

    def see(self, event: ThreadEvent) -> None:
        """What becomes of its messages ends a turn too, where the agent's own word of that was missed."""
        message, turn = event.message, self._started
        if turn is None:
            return
        if isinstance(event, MessageRecorded):
            is_over = message.message_id == turn.reply_id
        else:
            is_over = message.message_id in turn.in_reply_to and message.fate != "pending"
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
        if piece.index != self.pieces:
            self._miss()
        elif self._length > KEPT:
            self.forget()
        else:
            self._texts.append(piece.text)
            self.pieces += piece.pieces

    def _miss(self) -> None:
        self.forget()
        self._on_gap()
