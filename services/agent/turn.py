"""One turn: the model is asked for one reply to some messages, and may be stopped while it speaks."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from logging import DEBUG

import structlog
from structlog.contextvars import bound_contextvars
from uuid_utils.compat import uuid7

from m3 import metrics, topology, tracing
from m3.bus import Bus
from m3.events import (
    Message,
    MessageAccepted,
    MessagesPassedOver,
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
from m3.tracing import Span
from services.agent.conversation import conversation, split
from services.agent.conversation import turns as whole_turns
from services.agent.model import ContextTooLong, Model, ModelFailed, Usage
from services.agent.policy import Plan
from services.agent.settling import Settler
from services.agent.spoken import Spoken
from services.agent.summary import summarised, worth_summing_up
from services.agent.telling import Telling
from services.agent.tokens import Count

#: Seconds that telling the last piece of a reply may take.
TELL_TIMEOUT = 1.0
#: Seconds that summing up what no longer fits may take; meanwhile the thread waits.
SUMMARY_TIMEOUT = 20.0
#: What is left of the context for a second try, where the model's server says that it is too long.
SHRUNK = 0.25

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Context:
    """What a turn is about: ``shown`` was said before and fits, ``left_out`` was said before that."""

    plan: Plan
    system_prompt: str
    left_out: Sequence[Message]
    shown: Sequence[Message]
    summary: str | None

    @property
    def thread_id(self) -> str:
        return self.plan.turn[0].thread_id

    def chat(self, shown: Sequence[Message]) -> list[dict[str, str]]:
        return conversation(self.system_prompt, shown, self.plan.turn, self.summary)


@dataclass(slots=True)
class _Thinking:
    """A turn while the model is asked. ``stopped`` is why somebody broke it off."""

    telling: Telling
    asking: "asyncio.Task[Usage | None]"
    stopped: TurnOutcome | None = None

    def stop(self, why: TurnOutcome) -> None:
        self.stopped = self.stopped or why
        self.asking.cancel()


@dataclass(frozen=True, slots=True)
class _End:
    """How the model's part ended. ``usage`` is None where its server did not count."""

    outcome: TurnOutcome
    reason: str = ""
    usage: Usage | None = None


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

    def retell(self, thread_id: str, origin: str) -> None:
        """Tell that queue the thread's turn from its start, if the model is at one."""
        if thinking := self._thinking.get(thread_id):
            thinking.telling.retell(topology.retold(origin))

    def retell_all(self) -> None:
        """Tell everybody: to who has heard all it is no news."""
        for thread_id, thinking in self._thinking.items():
            thinking.telling.retell(topology.thinking(thread_id))

    async def take(self, plan: Plan, settings: ThreadSettings, may_begin: Callable[[], bool]) -> None:
        """Ask the model for one reply and see it recorded, or the reason why there is none; nothing of that unless it
        ``may_begin`` when all is read.

        Raises StoreUnavailable where the thread could not be read; then nothing was asked.
        """
        context = await self._read(plan, settings)
        ids = tuple(message.message_id for message in plan.turn)
        telling = Telling(
            self.bus,
            self.store.content,
            context.thread_id,
            turn_id=uuid7(),
            reply_id=reply_id(ids[0]),
            in_reply_to=ids,
        )
        started_at, begun = datetime.now(UTC), asyncio.get_running_loop().time()
        if not may_begin():  # with no await from here until it can be stopped
            return
        told = background(f"telling of {context.thread_id}", telling.run(), stop=telling.finish, grace=TELL_TIMEOUT)
        with _followed(plan.turn, telling) as span:
            with metrics.TURNS_RUNNING.track_inprogress():
                async with told:
                    end = await self._ask(context, telling)
                    took = self._took(context, telling, end, started_at, begun)
            await self._settle(context, telling, end, took, span)
            span.ended({"m3.turn.outcome": end.outcome}, error="model_failed" if end.outcome == "failed" else "")
            _log_of_each(plan.turn, "turn ended", outcome=end.outcome)
        if self.settings.summarise and end.outcome == "answered" and may_begin():
            await self._sum_up(context)

    async def _read(self, plan: Plan, settings: ThreadSettings) -> _Context:
        said = await self.store.context(plan.turn, self.settings.context_messages)
        said = [message for message in said if not message.sealed]  # which cannot be read
        left_out, shown = split(said, budget=self.settings.context_tokens, count=self.count)
        return _Context(
            plan=plan,
            system_prompt=settings.system_prompt or self.settings.system_prompt,
            left_out=left_out,
            shown=shown,
            summary=await self.store.summary(plan.turn[0].thread_id) if self.settings.summarise else None,
        )

    async def _ask(self, context: _Context, telling: Telling) -> _End:
        """Have the model speak until it is done, fails, takes too long or is stopped."""
        asking = asyncio.create_task(self._answer(context, telling.spoken), name=f"turn of {context.thread_id}")
        thinking = self._thinking[context.thread_id] = _Thinking(telling, asking)
        task = asyncio.current_task()
        assert task is not None
        try:
            async with asyncio.timeout(self.settings.turn_timeout):
                return _End("answered", usage=await asking)
        except ModelFailed as error:
            return _End("failed", str(error))
        except TimeoutError:
            metrics.MODEL_ERRORS.labels("timeout").inc()
            return _End("failed", f"The model took longer than {self.settings.turn_timeout:g} seconds.")
        except asyncio.CancelledError:
            if thinking.stopped is None or task.cancelling():
                raise
            return _End(thinking.stopped)
        finally:
            del self._thinking[context.thread_id]

    async def _answer(self, context: _Context, spoken: Spoken) -> Usage | None:
        try:
            return await self.model.reply(context.chat(context.shown), spoken)
        except ContextTooLong:
            if not context.shown:
                raise
        log.warning("context too long for the model", thread_id=context.thread_id)
        spoken.restart()
        budget = SHRUNK * sum(self.count(message.content) for message in context.shown)
        _, shown = split(context.shown, budget=int(budget), count=self.count)
        return await self.model.reply(context.chat(shown), spoken)

    def _took(self, context: _Context, telling: Telling, end: _End, started_at: datetime, begun: float) -> Turn:
        """What the turn took, which is counted here too."""
        usage = end.usage or self._estimated(context, telling.spoken.text)
        turn = Turn(
            turn_id=telling.turn_id,
            lane=context.plan.lane,
            model=self.model.name,
            started_at=started_at,
            duration=asyncio.get_running_loop().time() - begun,
            first_token=telling.first_text and telling.first_text - begun,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            estimated=end.usage is None,
            attempts=telling.spoken.attempts,
        )
        metrics.TURNS.labels(turn.lane, end.outcome).inc()
        metrics.TURN_SECONDS.labels(turn.lane).observe(turn.duration)
        if turn.first_token is not None:
            metrics.FIRST_TOKEN_SECONDS.labels(turn.lane).observe(turn.first_token)
        metrics.TOKENS.labels("prompt").inc(turn.prompt_tokens)
        metrics.TOKENS.labels("completion").inc(turn.completion_tokens)
        return turn

    def _estimated(self, context: _Context, text: str) -> Usage:
        """A model that said nothing has read nothing, as far as we know."""
        if not text:
            return Usage(0, 0)
        return Usage(sum(self.count(one["content"]) for one in context.chat(context.shown)), self.count(text))

    async def _settle(self, context: _Context, telling: Telling, end: _End, took: Turn, span: Span) -> None:
        """See the outcome into the table, and tell that the turn is over."""
        if end.outcome == "interrupted":
            await self.settler.mention(TurnInterrupted(thread_id=context.thread_id, turn=took))
            await telling.end("interrupted")
            return
        outcome = self._outcome(context, telling, end, took)
        reason = None if isinstance(outcome, MessageAccepted) else outcome.reason
        if isinstance(outcome, MessageAccepted):
            outcome = span.carried_by(outcome)
        if await self.settler.settle(outcome):
            await telling.end(end.outcome, reason)
            return
        # Or the model would be asked again and again for what the recorder will not take.
        reason = "The reply could not be recorded."
        if not await self.settler.settle(self._failure(telling, reason, took)):
            log.error("turn without an outcome", thread_id=context.thread_id)
        await telling.end("failed", reason)

    def _outcome(self, context: _Context, telling: Telling, end: _End, took: Turn) -> MessageAccepted | Unanswered:
        if end.outcome == "failed":
            return self._failure(telling, end.reason, took)
        if not telling.spoken.text:
            return MessagesPassedOver(
                thread_id=context.thread_id,
                message_ids=telling.in_reply_to,
                fate="cancelled",
                reason="It was cancelled before the agent said anything.",
                origin=self.settler.origin,
                turn=took,
            )
        return MessageAccepted(
            message_id=telling.reply_id,
            thread_id=context.thread_id,
            source="assistant",
            content=telling.spoken.text,
            interface=context.plan.turn[0].interface,
            origin=self.settler.origin,
            in_reply_to=telling.in_reply_to,
            cancelled=end.outcome == "cancelled",
            turn=took,
            accepted_at=datetime.now(UTC),
            traceparent=context.plan.turn[0].traceparent or "",
        )

    def _failure(self, telling: Telling, reason: str, took: Turn) -> TurnFailed:
        message_ids = telling.in_reply_to
        log.warning("turn failed", thread_id=telling.thread_id, message_id=str(message_ids[0]), reason=reason)
        return TurnFailed(
            thread_id=telling.thread_id,
            message_ids=message_ids,
            reason=reason,
            origin=self.settler.origin,
            turn=took,
        )

    async def _sum_up(self, context: _Context) -> None:
        """Have the model sum up what did not fit, so that later turns know of it. One that fails is left out."""
        budget = self.settings.context_tokens
        left_out = list(context.left_out)
        asked = sum(message.source != "assistant" for message in (*left_out, *context.shown))
        if asked >= self.settings.context_messages:  # or the oldest would soon not be read any more
            said = whole_turns((*left_out, *context.shown))
            half = [message for turn in said[: len(said) // 2] for message in turn]
            left_out = max(left_out, half, key=len)
        elif not worth_summing_up(left_out, budget=budget, count=self.count):
            return
        until = max((message.seq for message in left_out if message.source != "assistant"), default=0)
        try:
            async with asyncio.timeout(SUMMARY_TIMEOUT):
                text = await summarised(self.model, context.summary, left_out, budget=budget, count=self.count)
        except (ModelFailed, TimeoutError) as error:
            log.warning("thread not summed up", thread_id=context.thread_id, reason=str(error) or "it took too long")
            return
        await self.settler.mention(ThreadSummarised(thread_id=context.thread_id, until=until, text=text))


@contextmanager
def _followed(turn: Sequence[Message], telling: Telling) -> Iterator[Span]:
    """The turn is inside the block, in the trace of the first message that it answers."""
    first, *others = turn
    route = topology.announced(first.source, first.thread_id)
    attributes: dict[str, str | int] = {"m3.turn.id": str(telling.turn_id), "messaging.batch.message_count": len(turn)}
    with (
        tracing.span("turn", "CONSUMER", first, attributes, route=route, others=others) as span,
        bound_contextvars(**tracing.ids(first), turn_id=str(telling.turn_id)),
    ):
        _log_of_each(turn, "turn began")
        yield span


def _log_of_each(turn: Sequence[Message], what: str, **more: object) -> None:
    """A line for each message, so that it is found by its own trace too."""
    if log.is_enabled_for(DEBUG):
        for message in turn:
            log.debug(what, **tracing.ids(message), **more)
