"""One turn: the model is asked for one reply to some messages, and may be stopped while it speaks."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from m3 import metrics
from m3.bus import Bus
from m3.events import (
    Message,
    MessageAccepted,
    MessagesPassedOver,
    OutsideSource,
    ThreadSummarised,
    Turn,
    TurnFailed,
    TurnInterrupted,
    TurnOutcome,
    Unanswered,
    reply_id,
)
from m3.settings import Settings
from m3.store import Store
from m3.tasks import background
from m3.threads import ThreadSettings
from services.agent.conversation import conversation, split
from services.agent.model import Answer, ContextTooLong, Model, ModelFailed
from services.agent.policy import Plan
from services.agent.settling import Settler
from services.agent.spoken import Spoken
from services.agent.summary import summarised, worth_summing_up
from services.agent.telling import Telling
from services.agent.tokens import Count

#: Seconds that telling the last piece of a reply may take.
TELL_TIMEOUT = 1.0
#: What is left of the context for a second try, where the model's server says that it is too long.
SHRUNK = 0.25

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Context:
    """What a turn is about."""

    messages: tuple[Message, ...]
    lane: OutsideSource
    system_prompt: str
    said: Sequence[Message]
    summary: str | None


@dataclass(slots=True)
class _Thinking:
    """A turn while the model is asked. ``stopped`` is why somebody broke it off."""

    asking: "asyncio.Task[Answer]"
    stopped: TurnOutcome | None = None

    def stop(self, why: TurnOutcome) -> None:
        self.stopped = self.stopped or why
        self.asking.cancel()


@dataclass(frozen=True, slots=True)
class _End:
    """How the model's part ended."""

    outcome: TurnOutcome
    reason: str | None = None
    answer: Answer | None = None


@dataclass(slots=True)
class Turns:
    """The turns of one agent, at most one a thread."""

    bus: Bus
    store: Store
    settler: Settler
    model: Model
    count: Count
    settings: Settings
    _thinking: dict[str, _Thinking] = field(default_factory=dict)

    def stop(self, thread_id: str, why: TurnOutcome) -> None:
        """Break off the thread's turn, if the model is at one. ``cancelled``: what was said so far stands as the reply.
        ``interrupted``: as if it had never begun."""
        if thinking := self._thinking.get(thread_id):
            log.info("turn stopped", thread_id=thread_id, why=why)
            thinking.stop(why)

    async def take(self, plan: Plan, settings: ThreadSettings, is_ours: Callable[[], bool]) -> None:
        """Ask the model for one reply and see it recorded, or the reason why there is none; nothing of that unless the
        thread ``is_ours`` when all is read.

        Raises StoreUnavailable where the thread could not be read; then nothing was asked.
        """
        thread_id = plan.turn[0].thread_id
        context = _Context(
            messages=plan.turn,
            lane=plan.lane,
            system_prompt=settings.system_prompt or self.settings.system_prompt,
            said=await self.store.context(plan.turn, self.settings.context_messages),
            summary=await self.store.summary(thread_id) if self.settings.summarise else None,
        )
        telling = Telling(
            self.bus, thread_id, uuid7(), reply_id(plan.turn[0].message_id), tuple(m.message_id for m in plan.turn)
        )
        started_at, begun = datetime.now(UTC), asyncio.get_running_loop().time()
        if not is_ours():  # with no await from here until it can be stopped
            return
        told = background(f"telling of {thread_id}", telling.run(), stop=telling.finish, grace=TELL_TIMEOUT)
        with metrics.TURNS_RUNNING.track_inprogress():
            async with told:
                end = await self._ask(thread_id, context, telling.spoken)
                took = self._took(context, telling, end, started_at, begun)
        await self._settle(context, telling, end, took)
        if self.settings.summarise and end.outcome == "answered":
            await self._sum_up(thread_id, context)

    async def _ask(self, thread_id: str, context: _Context, spoken: Spoken) -> _End:
        """Have the model speak until it is done, fails, takes too long or is stopped."""
        asking = asyncio.create_task(self._answer(context, spoken), name=f"turn of {thread_id}")
        thinking = self._thinking[thread_id] = _Thinking(asking)
        task = asyncio.current_task()
        assert task is not None
        try:
            async with asyncio.timeout(self.settings.turn_timeout):
                answer = await asking
            return _End("answered", answer=answer)
        except ModelFailed as error:
            return _End("failed", str(error))
        except TimeoutError:
            metrics.MODEL_ERRORS.labels("timeout").inc()
            reason = f"The model took longer than {self.settings.turn_timeout:g} seconds."
            return _End("failed", reason)
        except asyncio.CancelledError:
            if thinking.stopped is None or task.cancelling():
                raise
            return _End(thinking.stopped)
        finally:
            del self._thinking[thread_id]

    async def _answer(self, context: _Context, spoken: Spoken) -> Answer:
        budget = self.settings.context_tokens
        try:
            return await self.model.reply(self._chat(context, budget), spoken)
        except ContextTooLong:
            _, shown = split(context.said, budget=budget, count=self.count)
            if not shown:
                raise
            log.warning("context too long for the model", thread_id=context.messages[0].thread_id)
            spoken.restart()
            shorter = int(SHRUNK * sum(self.count(message.content) for message in shown))
            return await self.model.reply(self._chat(context, shorter), spoken)

    def _chat(self, context: _Context, budget: int) -> list[dict[str, str]]:
        return conversation(
            context.system_prompt,
            context.said,
            context.messages,
            budget=budget,
            count=self.count,
            summary=context.summary,
        )

    def _took(self, context: _Context, telling: Telling, end: _End, started_at: datetime, begun: float) -> Turn:
        """What the turn took, which is counted here too."""
        usage = end.answer.usage if end.answer else None
        turn = Turn(
            turn_id=telling.turn_id,
            lane=context.lane,
            model=self.model.name,
            started_at=started_at,
            duration=asyncio.get_running_loop().time() - begun,
            first_token=telling.first_text and telling.first_text - begun,
            prompt_tokens=usage.prompt_tokens if usage else self._estimated_prompt(context),
            completion_tokens=usage.completion_tokens if usage else self.count(telling.spoken.text),
            estimated=usage is None,
            attempts=telling.spoken.attempts,
        )
        metrics.TURNS.labels(turn.lane, end.outcome).inc()
        metrics.TURN_SECONDS.labels(turn.lane).observe(turn.duration)
        if turn.first_token is not None:
            metrics.FIRST_TOKEN_SECONDS.labels(turn.lane).observe(turn.first_token)
        metrics.TOKENS.labels("prompt").inc(turn.prompt_tokens)
        metrics.TOKENS.labels("completion").inc(turn.completion_tokens)
        return turn

    def _estimated_prompt(self, context: _Context) -> int:
        return sum(self.count(one["content"]) for one in self._chat(context, self.settings.context_tokens))

    async def _settle(self, context: _Context, telling: Telling, end: _End, took: Turn) -> None:
        """See the outcome into the table, and tell that the turn is over."""
        if end.outcome == "interrupted":
            await self.settler.mention(TurnInterrupted(thread_id=context.messages[0].thread_id, turn=took))
            await telling.end("interrupted")
            return
        outcome = self._outcome(context, telling, end, took)
        reason = None if isinstance(outcome, MessageAccepted) else outcome.reason
        if await self.settler.settle(outcome):
            await telling.end(end.outcome, reason)
            return
        # Or the model would be asked again and again for what the recorder will not take.
        reason = "The reply could not be recorded."
        if not await self.settler.settle(self._failure(context, reason, None)):
            log.error("turn without an outcome", thread_id=context.messages[0].thread_id)
        await telling.end("failed", reason)

    def _outcome(self, context: _Context, telling: Telling, end: _End, took: Turn) -> MessageAccepted | Unanswered:
        first, text = context.messages[0], telling.spoken.text
        if end.outcome == "failed":
            return self._failure(context, end.reason or "", took)
        if not text:
            return MessagesPassedOver(
                thread_id=first.thread_id,
                message_ids=telling.in_reply_to,
                fate="cancelled",
                reason="It was cancelled before the agent said anything.",
                origin=self.settler.origin,
                turn=took,
            )
        return MessageAccepted(
            message_id=telling.reply_id,
            thread_id=first.thread_id,
            source="assistant",
            content=text,
            interface=first.interface,
            origin=self.settler.origin,
            in_reply_to=telling.in_reply_to,
            cancelled=end.outcome == "cancelled",
            turn=took,
        )

    def _failure(self, context: _Context, reason: str, took: Turn | None) -> TurnFailed:
        first = context.messages[0]
        log.warning("turn failed", thread_id=first.thread_id, message_id=str(first.message_id), reason=reason)
        ids: tuple[UUID, ...] = tuple(message.message_id for message in context.messages)
        return TurnFailed(
            thread_id=first.thread_id, message_ids=ids, reason=reason, origin=self.settler.origin, turn=took
        )

    async def _sum_up(self, thread_id: str, context: _Context) -> None:
        """Have the model sum up what did not fit, so that later turns know of it. One that fails is left out."""
        budget = self.settings.context_tokens
        left_out, _ = split(context.said, budget=budget, count=self.count)
        if not worth_summing_up(left_out, budget=budget, count=self.count):
            return
        until = max(message.seq for message in left_out if message.source != "assistant")
        try:
            async with asyncio.timeout(self.settings.turn_timeout):
                text = await summarised(self.model, context.summary, left_out, budget=budget, count=self.count)
        except (ModelFailed, TimeoutError) as error:
            log.warning("thread not summed up", thread_id=thread_id, reason=str(error))
            return
        await self.settler.mention(ThreadSummarised(thread_id=thread_id, until=until, text=text))
