"""A POST that is answered with an event stream: the message, the turn as it goes, and the reply."""

import asyncio
from contextlib import AbstractAsyncContextManager, AbstractContextManager

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from m3 import frames
from m3.door import Taken, Watch
from m3.events import Fate, Message, TurnEnded, TurnNews, TurnOutcome, TurnStarted
from m3.frames import Frame
from m3.settings import Settings
from m3.store import Store
from m3.tracing import Span
from m3.web import Refusal
from services.gateway.answering import answered
from services.gateway.event_stream import Tell, event_stream
from services.gateway.outcomes import accepted, failure, is_far_behind, reply_known
from services.gateway.reading_along import Reader

#: How a turn ended whose message has one of these fates.
_ENDED: dict[Fate | None, TurnOutcome] = {"failed": "failed", "cancelled": "cancelled"}


class ChatStream(Response):
    """Takes the message itself, so that what it needs for that lives as long as the answer. What is refused before the
    message is recorded is an ordinary answer still.

    ``staying``: the caller may read, or it raises Refusal. ``resumed``: the caller comes back, and was told that it is
    recorded.
    """

    def __init__(  # noqa: PLR0913, PLR0917  # what its answer lives on
        self,
        reading: AbstractAsyncContextManager[Reader],
        taking: AbstractAsyncContextManager[Taken],
        staying: AbstractAsyncContextManager[None],
        store: Store,
        settings: Settings,
        answering: AbstractContextManager[Span],
        *,
        resumed: bool,
    ) -> None:
        super().__init__()
        self._reading = reading
        self._taking = taking
        self._staying = staying
        self._store = store
        self._settings = settings
        self._answering = answering
        self._resumed = resumed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # as ASGI has it
        with self._answering as span:
            await self._answer(receive, send, span)

    async def _answer(self, receive: Receive, send: Send, span: Span) -> None:
        async with (
            self._reading as reader,
            self._taking as taken,
            event_stream(receive, send, self._settings.ping_interval) as tell,
        ):
            answered(span, self.status_code)
            story = _Story(tell)
            try:
                async with self._staying:
                    await self._tell(story, reader, taken)
            except Refusal as refusal:
                await story.break_off(refusal)

    async def _tell(self, story: "_Story", reader: Reader, taken: Taken) -> None:
        if not self._resumed:
            await story.begin(taken.message)
        if await is_far_behind(taken, self._store, self._settings):
            await story.put_off(taken.message, taken.before)
            return
        message = await _follow(story, reader, taken.watch, self._settings.reply_timeout)
        if message is None:
            await story.put_off(taken.message)
        else:
            await story.end(message, await reply_known(taken.watch))


async def _follow(story: "_Story", reader: Reader, watch: Watch, within: float) -> Message | None:
    """Tell the news until the message has its fate, and return it; None after so many seconds without news."""
    now = asyncio.get_running_loop().time
    enough = now() + within

    async def settle() -> Message | None:
        waiting = asyncio.create_task(watch.settled(None), name="fate of a message with an event stream")
        try:
            while not waiting.done() and now() < enough:
                await asyncio.wait([waiting], timeout=enough - now())
            return waiting.result() if waiting.done() else None
        except TimeoutError:  # this process is about to end
            return None
        finally:
            waiting.cancel()
            reader.end()

    async with asyncio.TaskGroup() as group:
        settling = group.create_task(settle(), name="patience of an event stream")
        while (news := await reader.next()) is not None:
            await story.go_on(news)
            enough = now() + within
            if isinstance(news, TurnEnded):
                watch.doubt()  # what came of it is recorded, and may be told to another gateway
    return settling.result()


class _Story:
    """What is told of one message, in order."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._turn: TurnStarted | None = None  # that was told to run

    async def begin(self, message: Message) -> None:
        frame = frames.recorded(message)
        await self._tell("recorded", frames.text(frame), str(message.message_id))

    async def go_on(self, news: TurnNews) -> None:
        if isinstance(news, TurnStarted):
            self._turn = news
        elif isinstance(news, TurnEnded):
            self._turn = None
        await self._tell_frame(frames.turn_news(news))

    async def end(self, message: Message, reply: Message | None) -> None:
        if ended := _ENDED.get(message.fate):
            await self._end_turn(ended, message.reason)
        if message.fate == "failed":
            await self.break_off(failure(message))
        elif reply is not None:
            await self._tell_frame(frames.new_message(reply))
        else:
            await self._tell_frame(frames.fate(message))

    async def break_off(self, refusal: Refusal) -> None:
        await self._tell_body("error", refusal.body)

    async def put_off(self, message: Message, place: int | None = None) -> None:
        await self._tell_body("pending", accepted(message, place))

    async def _end_turn(self, outcome: TurnOutcome, reason: str | None) -> None:
        """The fate may overtake the agent's own word of the end."""
        if turn := self._turn:
            thread_id, turn_id, reply_id = turn.thread_id, turn.turn_id, turn.reply_id
            await self.go_on(
                TurnEnded(thread_id=thread_id, turn_id=turn_id, reply_id=reply_id, outcome=outcome, reason=reason)
            )

    async def _tell_frame(self, frame: Frame) -> None:
        await self._tell(str(frame["type"]), frames.text(frame), None)

    async def _tell_body(self, name: str, body: BaseModel) -> None:
        await self._tell(name, body.model_dump_json(exclude_none=True), None)
