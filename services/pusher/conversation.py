"""What one socket says: messages, cancellations and pings."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from math import ceil
from typing import Generic, NoReturn, TypeVar

from pydantic import ValidationError
from starlette.types import Receive
from uuid_utils.compat import uuid7

from m3 import metrics, tracing
from m3.access.rules import SOCKET
from m3.access.speaking import action_of, author_of, sender_of
from m3.door import Door
from m3.errors import BusError, Denied, Forbidden, M3Error, NotRecorded, StoreUnavailable, TooOften
from m3.events import Message, MessageAccepted, keyed_id
from m3.settings import Settings
from m3.web import Refusal, problem_sentence, refusal_of
from services.pusher import frames
from services.pusher.entrance import Opening
from services.pusher.hub import Seat

#: Messages of one socket that may wait to be taken; past it the socket is not read. Cancellations likewise.
INBOX = 256

(_TO_TYPE,) = SOCKET["typing"]
(_TO_CANCEL,) = SOCKET["cancel"]

_NOT_HANDED_IN = Refusal(503, "not_handed_in", "The message before it was not recorded; say both again.")

#: Their lane is not known; they count as of the one that is meant where none is told.
_invalid_messages = metrics.MESSAGES.labels("user", "websocket", "invalid_message")

T = TypeVar("T")


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
        self._messages = _Inbox(f"messages of a socket of {opening.key}", self._take, tasks)
        self._cancels = _Inbox(f"cancellations of a socket of {opening.key}", self._pass_on, tasks)

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
                    active = frames.SocketTyping.model_validate_json(text).active
                    await self._opening.check(_TO_TYPE)
                    self._seat.type(active=active)
                case "message":
                    self._seat.type(active=False)
                    await self._messages.put(self._own(frames.Said.model_validate_json(text)))
                case "messages":
                    self._seat.type(active=False)
                    for said in _understood(frames.SocketBatch.model_validate_json(text).messages):
                        await self._messages.put(said if isinstance(said, str) else self._own(said))
        except ValidationError as error:
            self._outbox.tell(_invalid(error, frames.client_id_of(text)))
        except (Denied, StoreUnavailable) as error:
            self._outbox.tell(_error(error))

    def _own(self, said: frames.Said) -> frames.Said | str:
        """With the source that its sender has; or the error that it is answered with, where it says another."""
        try:
            source = self._opening.source_of(said.source, told="source" in said.model_fields_set)
        except Forbidden as error:
            return _answer(said, *_refused([said], error))
        return said if source == said.source else said.model_copy(update={"source": source})

    async def _take(self, heard: Sequence[frames.Said | str]) -> None:
        """What piled up goes in together and in order, so that a socket's messages are numbered as it sent them. Where
        one is not recorded, what waits behind it is refused at once, for the client to say in order again."""
        results = await self._taken([one for one in heard if isinstance(one, frames.Said)])
        if any(isinstance(result, BusError | StoreUnavailable | NotRecorded | TooOften) for result in results):
            behind = self._messages.take_all()
            heard = [*heard, *behind]
            results += _refused([one for one in behind if isinstance(one, frames.Said)], _NOT_HANDED_IN)
        outcomes = iter(results)
        self._outbox.tell(*(one if isinstance(one, str) else _answer(one, next(outcomes)) for one in heard))

    async def _taken(self, said: Sequence[frames.Said]) -> list[Message | M3Error]:
        """What became of each. From the first that comes too soon on, none is handed in."""
        for number in range(len(said)):
            try:
                await self._opening.count_message()
            except TooOften as error:
                return [*await self._handed_in(said[:number]), *_refused(said[number:], error)]
        return await self._handed_in(said)

    async def _handed_in(self, said: Sequence[frames.Said]) -> list[Message | M3Error]:
        try:
            for action in {action_of(one.source) for one in said}:
                await self._opening.check(action)
        except (Denied, StoreUnavailable) as error:
            return _refused(said, error)
        try:
            with tracing.accepting([self._accepted(one) for one in said]) as accepted:
                return await self._door.take_all(accepted, self._settings)
        except (BusError, StoreUnavailable) as error:
            return [error, *[_NOT_HANDED_IN for _ in said[1:]]]

    async def _pass_on(self, cancels: list[None]) -> None:
        """Not behind the messages: a turn that is to stop should not go on until they are recorded."""
        for _ in cancels:
            try:
                await self._opening.check(_TO_CANCEL)
                await self._door.ask_to_cancel(self._opening.key)
                self._outbox.tell(frames.cancelling(self._opening.key))
            except (Denied, StoreUnavailable, BusError) as error:
                self._outbox.tell(_error(error))

    def _accepted(self, said: frames.Said) -> MessageAccepted:
        opening = self._opening
        sender = sender_of(opening.principal, opening.client)
        return MessageAccepted(
            message_id=keyed_id(sender, said.client_id) if said.client_id else uuid7(),
            thread_id=opening.key,
            source=said.source,
            content=said.message,
            interface="websocket",
            origin=self._door.origin,
            author=author_of(opening.principal, opening.client),
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
    return frames.recorded(result, said.client_id) if isinstance(result, Message) else _error(result, said.client_id)


def _error(error: M3Error, client_id: str | None = None) -> str:
    refusal = refusal_of(error).body
    wait = ceil(error.retry_after) if isinstance(error, TooOften) else None
    return frames.error(
        refusal.code, refusal.message, message_id=refusal.message_id, client_id=client_id, retry_after=wait
    )


def _refused(said: Sequence[frames.Said], error: M3Error) -> list[Message | M3Error]:
    """What did not come to the door, which counts what does."""
    for one in said:
        metrics.MESSAGES.labels(one.source, "websocket", error.code).inc()
    return [error] * len(said)
