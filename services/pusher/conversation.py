"""What one socket says: messages, cancellations and pings."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Generic, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.types import Receive
from uuid_utils.compat import uuid7

from m3 import metrics, tracing
from m3.door import Door
from m3.errors import BusError, M3Error, NotRecorded, StoreUnavailable
from m3.events import ANYONE, Message, MessageAccepted, Number, SenderName, ThreadId, keyed_id
from m3.settings import Settings
from m3.web import Refusal, problem_sentence, refusal_of
from services.pusher import frames
from services.pusher.hub import Seat

#: Messages of one socket that may wait to be taken; past it the socket is not read. Cancellations likewise.
INBOX = 256

_NOT_HANDED_IN = Refusal(503, "not_handed_in", "The message before it was not recorded; say both again.")

#: Their lane is not known; they count as of the one that is meant where none is told.
_invalid_messages = metrics.MESSAGES.labels("user", "websocket", "invalid_message")

T = TypeVar("T")


class Opening(BaseModel):
    """How a socket is opened: its path and query."""

    thread_id: ThreadId
    after: Number | None = None
    events: Literal["all"] | None = None
    client: SenderName = ANYONE


class Gone(Exception):
    """The client went away, or was closed; ``code`` is the socket's last word."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Inbox(Generic[T]):
    """What a socket said and is not dealt with yet. The task that does so begins with the first of it: most sockets
    only listen, and have none."""

    def __init__(self, name: str, deal: Callable[[list[T]], Awaitable[None]], tasks: asyncio.TaskGroup) -> None:
        self._name = name
        self._deal = deal
        self._tasks = tasks
        self._waiting: asyncio.Queue[T] | None = None

    async def put(self, said: T) -> None:
        if self._waiting is None:
            self._waiting = asyncio.Queue(INBOX)
            self._tasks.create_task(self._run(self._waiting), name=self._name)
        await self._waiting.put(said)

    def take_all(self) -> list[T]:
        """All that waits just now."""
        if self._waiting is None:
            return []
        taken = [self._waiting.get_nowait() for _ in range(self._waiting.qsize())]
        for _ in taken:
            self._waiting.task_done()
        return taken

    async def join(self) -> None:
        """Wait until all was dealt with."""
        if self._waiting is not None:
            await self._waiting.join()

    async def _run(self, waiting: asyncio.Queue[T]) -> NoReturn:
        while True:
            first = await waiting.get()
            try:
                await self._deal([first, *self.take_all()])
            finally:
                waiting.task_done()


class Conversation:
    """``hear`` reads what the socket says, and goes on while what it said is dealt with: the client's pongs come in
    between. ``tasks`` are those of this socket."""

    def __init__(self, opening: Opening, seat: Seat, door: Door, settings: Settings, tasks: asyncio.TaskGroup) -> None:
        self._opening = opening
        self._seat = seat
        self._outbox = seat.outbox
        self._door = door
        self._settings = settings
        thread_id = opening.thread_id
        self._messages = _Inbox(f"messages of a socket of {thread_id}", self._take, tasks)
        self._cancels = _Inbox(f"cancellations of a socket of {thread_id}", self._pass_on, tasks)

    async def hear(self, receive: Receive) -> NoReturn:
        """Raises Gone."""
        while True:
            received = await receive()
            if received["type"] == "websocket.disconnect":
                self._seat.leave()
                with suppress(TimeoutError):  # what it said last is still taken
                    async with asyncio.timeout(self._settings.record_timeout):
                        await self._messages.join()
                        await self._cancels.join()
                raise Gone(received["code"])
            text = received.get("text")
            if text is None:
                _invalid_messages.inc()
                self._outbox.tell(frames.error("invalid_message", "Frames must be text."))
            elif text == "ping":
                self._outbox.tell(frames.pong())
            else:
                await self._hear_frame(text)

    async def _hear_frame(self, text: str) -> None:
        try:
            match frames.SocketFrame.model_validate_json(text).type:
                case "cancel":
                    await self._cancels.put(None)
                case "typing":
                    self._seat.type(active=frames.SocketTyping.model_validate_json(text).active)
                case "message":
                    self._seat.type(active=False)
                    await self._messages.put(frames.Said.model_validate_json(text))
                case "messages":
                    self._seat.type(active=False)
                    for said in _understood(frames.SocketBatch.model_validate_json(text).messages):
                        await self._messages.put(said)
        except ValidationError as error:
            self._outbox.tell(_invalid(error, frames.client_id_of(text)))

    async def _take(self, heard: Sequence[frames.Said | str]) -> None:
        """What piled up goes in together and in order, so that a socket's messages are numbered as it sent them. Where
        one is not recorded, what waits behind it is refused at once, for the client to say in order again."""
        said = [one for one in heard if isinstance(one, frames.Said)]
        results: Sequence[Message | M3Error]
        try:
            with tracing.accepting([self._accepted(one) for one in said]) as accepted:
                results = await self._door.take_all(accepted, self._settings)
        except (BusError, StoreUnavailable) as error:
            results = [error, *[_NOT_HANDED_IN for _ in said[1:]]]
        if any(isinstance(result, BusError | StoreUnavailable | NotRecorded) for result in results):
            behind = self._messages.take_all()
            heard = [*heard, *behind]
            for one in behind:
                if isinstance(one, frames.Said):
                    metrics.MESSAGES.labels(one.source, "websocket", _NOT_HANDED_IN.code).inc()
                    results = [*results, _NOT_HANDED_IN]
        outcomes = iter(results)
        self._outbox.tell(*(one if isinstance(one, str) else _answer(one, next(outcomes)) for one in heard))

    async def _pass_on(self, cancels: list[None]) -> None:
        """Not behind the messages: a turn that is to stop should not go on until they are recorded."""
        for _ in cancels:
            try:
                await self._door.ask_to_cancel(self._opening.thread_id)
                self._outbox.tell(frames.cancelling(self._opening.thread_id))
            except BusError as error:
                refusal = refusal_of(error).body
                self._outbox.tell(frames.error(refusal.code, refusal.message))

    def _accepted(self, said: frames.Said) -> MessageAccepted:
        return MessageAccepted(
            message_id=keyed_id(self._opening.client, said.client_id) if said.client_id else uuid7(),
            thread_id=self._opening.thread_id,
            source=said.source,
            content=said.message,
            interface="websocket",
            origin=self._door.origin,
            accepted_at=datetime.now(UTC),
            traceparent=said.traceparent,
        )


def _understood(batch: Sequence[object]) -> Iterator[frames.Said | str]:
    """Each of the batch that is a message, and for each other the error that it is answered with, in its place."""
    for place, one in enumerate(batch):
        try:
            yield frames.Said.model_validate(one)
        except ValidationError as error:
            client_id = one.get("client_id") if isinstance(one, dict) else None
            yield _invalid(error, client_id if isinstance(client_id, str) else None, "messages", place)


def _invalid(error: ValidationError, client_id: str | None, *where: str | int) -> str:
    _invalid_messages.inc()
    problems = [{**problem, "loc": (*where, *problem["loc"])} for problem in error.errors(include_input=False)]
    return frames.error("invalid_message", problem_sentence(problems), client_id=client_id)


def _answer(said: frames.Said, result: Message | M3Error) -> str:
    if isinstance(result, Message):
        return frames.recorded(result, said.client_id)
    refusal = refusal_of(result).body
    return frames.error(refusal.code, refusal.message, message_id=refusal.message_id, client_id=said.client_id)
