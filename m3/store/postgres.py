"""The dialogue table, and the only importer of asyncpg.

The table is the truth and the bus only carries news of it: whatever was committed here can be announced again.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import structlog
from pydantic import ValidationError

from m3 import metrics
from m3.errors import M3Error, StartError, StoreUnavailable, Unreached, Unstorable
from m3.events import (
    Incoming,
    Message,
    MessageAccepted,
    MessageRecorded,
    MessageSettled,
    MessagesPassedOver,
    OutsideSource,
    RetryAsked,
    ThreadEvent,
    ThreadSummarised,
    Turn,
    TurnFailed,
    TurnInterrupted,
)
from m3.sealing import Content, Masters, WrappedKey, unpacked
from m3.store.sql import array, columns, migrations, query
from m3.tasks import background
from m3.threads import ThreadSettings

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

#: Seconds that one command may take, unless a setting says otherwise.
COMMAND_TIMEOUT = 10.0
#: Seconds to wait for a free connection, and for making one, unless a setting says otherwise.
ACQUIRE_TIMEOUT = 5.0
#: Seconds that the end of a store may take, where the database does not answer.
CLOSE_TIMEOUT = 1.0
#: Seconds that one step of a migration may take; an index on a large table takes a while.
MIGRATION_TIMEOUT = 600.0
#: Seconds after which a process that fell silent loses the threads that it has taken.
LEASE = 30
#: Most of what was answered lately that is looked at for a text that repeats it.
RECENT = 1_000
#: How often a batch is tried again when another recorder inserted one of its messages in the same moment.
RACE_ATTEMPTS = 5

#: So that a process that vanished with its machine does not keep its locks, and with them its threads, and what nobody
#: waits for any more ends soon.
SESSION_SETTINGS = {
    "client_connection_check_interval": "500ms",
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}

#: A process that hangs keeps its session open, so the server ends the one that holds locks when it hears nothing.
LOCK_SETTINGS = SESSION_SETTINGS | {"idle_session_timeout": f"{LEASE}s"}

#: Beyond every number of a thread.
END = 2**63 - 1

#: The database is there and will not have us: waiting for it is pointless.
_REFUSALS = (
    asyncpg.ClientConfigurationError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.SyntaxOrAccessError,  # no right to make tables
    asyncpg.ReadOnlySQLTransactionError,
)

#: What asyncpg raises of a connection that lost track of itself, as where the server went away in the middle.
_CONFUSED = (asyncpg.InterfaceError, asyncpg.InternalClientError)

#: The role that sees one tenant's rows alone, and that of a session's own user.
_TENANTS_ROLE, _OWN_ROLE = "m3_tenant", "none"

log = structlog.get_logger(__name__)

_tenant: ContextVar[str | None] = ContextVar("tenant", default=None)


@contextmanager
def speaking_for(tenant: str | None) -> Iterator[None]:
    """What this task, and what it begins, asks of any store inside the block is asked on behalf of the tenant: of no
    other's rows does PostgreSQL show any, or let one be written, whatever a query says. None: of the whole room."""
    token = _tenant.set(tenant)
    try:
        yield
    finally:
        _tenant.reset(token)


class _Session(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """``tenant``: whom it speaks for just now."""

    tenant: str | None = None

    async def speak_for(self, tenant: str | None) -> None:
        """One round trip where that is somebody else than before. Where it fails the session must not be used again."""
        if tenant != self.tenant:
            role = _OWN_ROLE if tenant is None else _TENANTS_ROLE
            await self.execute(query("speak_for"), role, tenant or "")
            self.tenant = tenant


#: What a query returns a list of: values by the names of columns.
Row = Mapping[str, Any]
#: Carries out the query of that name with these arguments.
Ask = Callable[..., Awaitable[list[Row]]]


@dataclass(frozen=True, slots=True)
class Record:
    """What came of a batch: its messages as recorded, ordered by thread and number, and the messages whose fate it
    changed, each with its origin, once for each change."""

    messages: dict[UUID, Message]
    settled: list[tuple[str, Message]]
    known: frozenset[UUID] = frozenset()  # its messages that were there before
    changed: Sequence[Message] = ()  # those of settled whose fate was another before


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that waits for the agent, for ``age`` seconds now."""

    message: Message
    age: float


#: What tells one state of a mailbox from the next: the last number of what waits, and the thread's settings.
Mark = tuple[int, ThreadSettings]


@dataclass(frozen=True, slots=True)
class Mailbox:
    """What waits for the agent in a thread, oldest first, and how the thread wants it dealt with."""

    settings: ThreadSettings
    waiting: list[Waiting]
    mark: Mark


@contextmanager
def _translated() -> Iterator[None]:
    """asyncpg's errors, and the system's, as ours. What is not known to be the values' fault is worth another try."""
    try:
        yield
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError) as error:
        raise Unstorable(f"The database refuses this: {error}.") from error
    except (asyncpg.PostgresError, *_CONFUSED, OSError, TimeoutError) as error:
        metrics.DATABASE_FAILURES.inc()
        raise StoreUnavailable(f"The database did not do it: {type(error).__name__}.") from error


def _message(row: asyncpg.Record) -> Message:
    return Message.model_validate(dict(row))  # three times as fast as model_construct, and checked


class Store:
    """Reads and writes the dialogue. Every method raises StoreUnavailable while the database is away.

    What is sealed in the table is opened for whoever reads it, by ``content``; what is recorded is left as it comes.
    """

    def __init__(  # noqa: PLR0913  # what open_store is told
        self,
        pool: asyncpg.Pool,
        url: str,
        command_timeout: float = COMMAND_TIMEOUT,
        acquire_timeout: float = ACQUIRE_TIMEOUT,
        masters: Masters | None = None,
        *,
        searchable: bool = True,
    ) -> None:
        self.content = Content(masters or Masters(), self, searchable=searchable)
        self._pool = pool
        self._url = url
        self._command_timeout = command_timeout
        self._acquire_timeout = acquire_timeout
        self._walled: bool | None = None  # until somebody speaks for a tenant

    async def ping(self) -> None:
        """Raises StoreUnavailable when the database does not answer."""
        async with self._connection() as connection:
            await connection.fetchval("SELECT 1")

    async def record(self, events: Sequence[Incoming]) -> Record:
        """Write a batch in one transaction.

        Messages that are there already are left as they are; each other one gets the next number of its thread, in
        the order given. Replies settle what they answer; any other change of a fate takes a number of its own. Doing
        it again does nothing and returns the same.
        Raises Unstorable when the database refuses a value for good; then nothing of the batch was written.
        """
        for attempt in range(1, RACE_ATTEMPTS + 1):
            try:
                async with self._connection() as connection, _transaction(connection):
                    return await _record(connection, events)
            except Unstorable as error:
                # Two recorders that hold the same message for different threads do not wait for each other.
                if not isinstance(error.__cause__, asyncpg.UniqueViolationError) or attempt == RACE_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    async def message(self, message_id: UUID) -> Message | None:
        return (await self.messages([message_id])).get(message_id)

    async def messages(self, message_ids: Collection[UUID]) -> dict[UUID, Message]:
        """Those of the messages that are in the table."""
        messages = await self._opened(await self._fetch("messages", list(message_ids)))
        return {message.message_id: message for message in messages}

    async def latest(self, thread_id: str, limit: int, *, before: int = END) -> list[Message]:
        """The newest messages of the thread, or the newest of those before a number, oldest first."""
        rows = await self._fetch("latest_messages", thread_id, before, limit)
        return await self._opened(reversed(rows))

    async def following(self, thread_id: str, after: int, limit: int, *, before: int = END) -> list[Message]:
        """The oldest messages of the thread after a number, oldest first."""
        return await self._opened(await self._fetch("following_messages", thread_id, after, before, limit))

    async def found(self, thread_id: str, text: str, limit: int, *, before: int = END) -> list[Message]:
        """The newest messages of the thread that have every word of the text, newest first; of a text without words
        none."""
        plain, keyed = await self.content.asked(thread_id, text)
        if not plain:
            return []
        return await self._opened(await self._fetch("found_messages", thread_id, plain, keyed, before, limit))

    async def events_after(self, thread_id: str, number: int, limit: int, *, until: int = END) -> list[ThreadEvent]:
        """What happened in the thread after a number, in order. Of several changes of one message only the last is
        there, so their numbers may have gaps."""
        rows = await self._fetch("events_after", thread_id, number, until, limit)
        return [
            (MessageRecorded if row["number"] == row["seq"] else MessageSettled)(message=message)
            for row, message in zip(rows, await self._opened(rows), strict=True)
        ]

    async def head(self, thread_id: str) -> int:
        """The last number given out in the thread; 0 where there is no thread yet."""
        rows = await self._fetch("head", thread_id)
        return int(rows[0]["head"]) if rows else 0

    async def mailbox(self, thread_id: str, limit: int, *, of_people: int | None = None) -> Mailbox:
        """What waits for the agent in the thread: of each lane the oldest ``limit`` messages."""
        rows = await self._fetch("mailbox", thread_id, limit, limit if of_people is None else of_people)
        if not rows:
            return Mailbox(ThreadSettings(), [], (0, ThreadSettings()))
        settings = _thread_settings(rows[0]["settings"])
        there = [row for row in rows if row["message_id"] is not None]
        messages = await self._opened(there)
        waiting = [Waiting(message, row["age"]) for message, row in zip(messages, there, strict=True)]
        return Mailbox(settings, waiting, (rows[0]["newest"] or 0, settings))

    async def mailbox_mark(self, thread_id: str) -> Mark:
        """The mark that a mailbox without a limit would have now."""
        rows = await self._fetch("mailbox_mark", thread_id)
        return (rows[0]["newest"] or 0, _thread_settings(rows[0]["settings"])) if rows else (0, ThreadSettings())

    async def recent_answers(self, thread_id: str, within: float) -> list[Message]:
        """What programs said in the thread and had answered in the last so many seconds."""
        return await self._opened(await self._fetch("recent_answers", thread_id, within, RECENT))

    async def last_lanes(self, thread_id: str, count: int) -> list[OutsideSource]:
        """Whose turns the last ones of the thread were, newest first."""
        return [row["lane"] for row in await self._fetch("last_lanes", thread_id, count)]

    async def context(self, messages: Sequence[Message], limit: int) -> list[Message]:
        """What the agent dealt with before it answers these messages of one thread, each reply after what it answers,
        oldest first, as far as there is no summary of it; ``limit`` does not count replies."""
        ids = [message.message_id for message in messages]
        return await self._opened(await self._fetch("context", messages[0].thread_id, ids, limit))

    async def summary(self, thread_id: str) -> str | None:
        """What the thread was about up to where its context begins."""
        rows = await self._fetch("summary", thread_id)
        if not rows:
            return None
        text, until, sealed = rows[0]
        return await self.content.opened_summary(thread_id, until, text) if sealed else text

    async def thread_keys(self, thread_ids: Collection[str]) -> dict[str, WrappedKey]:
        """Those of the threads that have one."""
        rows = await self._fetch("thread_keys", list(thread_ids))
        return {row["thread_id"]: WrappedKey(row["master"], row["wrapped"]) for row in rows}

    async def add_thread_keys(self, keys: Mapping[str, WrappedKey]) -> None:
        """Keep them, but for threads that have one by then."""
        await self._fetch(
            "add_thread_keys", *columns([(thread_id, k.master, k.wrapped) for thread_id, k in keys.items()])
        )

    async def waiting_count(self, thread_id: str, source: OutsideSource, at_most: int) -> int:
        """How many messages of the source wait for the agent in the thread, counted up to ``at_most``."""
        rows = await self._fetch("waiting_count", thread_id, source, at_most)
        return int(rows[0]["waiting"])

    async def waiting_threads(self, older_than: float) -> list[tuple[OutsideSource, str]]:
        """Threads with a message that has waited for the agent for more than so many seconds, each with the lane that
        waits: people's first, then longest first."""
        rows = await self._fetch("waiting_threads", timedelta(seconds=older_than))
        return [(row["lane"], row["thread_id"]) for row in rows]

    async def thread_settings(self, thread_id: str) -> ThreadSettings:
        rows = await self._fetch("thread_settings", thread_id)
        return _thread_settings(rows[0]["settings"]) if rows else ThreadSettings()

    async def change_settings(self, thread_id: str, settings: ThreadSettings) -> None:
        """Replace the settings of the thread, which comes to be if it was not there."""
        await self._fetch("change_settings", thread_id, settings.model_dump_json(exclude_none=True))

    @asynccontextmanager
    async def thread_locks(self) -> AsyncIterator["ThreadLocks"]:
        # A third of the lease a heartbeat and a third to notice that it is not answered: before the server lets go.
        locks = ThreadLocks(self._url, min(self._command_timeout, LEASE / 3))
        try:
            async with background("thread locks", locks.keep()):
                yield locks
        finally:
            locks.close()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator["PoolConnectionProxy[asyncpg.Record]"]:
        began = perf_counter()
        with _translated():
            async with self._pool.acquire(timeout=self._acquire_timeout) as connection:
                metrics.POOL_WAIT.observe(perf_counter() - began)
                await self._speak(connection)
                try:
                    yield connection
                except (asyncpg.PostgresError, M3Error):  # the latter is said by our own code, between two commands
                    raise
                except BaseException:
                    # It was broken off, by a deadline of ours too, or lost track of itself. The pool would first wait
                    # for the server to say so, and then hand it out again.
                    connection.terminate()
                    raise

    async def _speak(self, session: "PoolConnectionProxy[asyncpg.Record]") -> None:
        """Have the session speak for whom this task does. One of which that is not known any more is at its end."""
        tenant = _tenant.get()
        try:
            if tenant is not None and not await self._has_wall(session):
                tenant = None
            await session.speak_for(tenant)
        except BaseException as error:
            session.terminate()
            if isinstance(error, asyncpg.PostgresError):
                self._walled = None  # somebody took the role away
                raise StoreUnavailable(f"The session speaks for nobody: {error}.") from error
            raise

    async def _has_wall(self, session: "PoolConnectionProxy[asyncpg.Record]") -> bool:
        """Looked at once. Without the wall there are the queries, which ask for one tenant's rows by themselves."""
        if self._walled is None:
            lacking = [row["statement"] for row in await session.fetch(query("wall"))]
            if self._walled is None:  # still
                self._walled = not lacking
                if lacking:
                    log.warning("no second wall between tenants", lacking=lacking)
        return self._walled

    async def ask(self, name: str, *arguments: Any) -> list[Row]:
        """The rows of the query of that name, for other classes of this package."""
        return await self._fetch(name, *arguments)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Ask]:
        """A block with an ``ask`` whose queries are carried out all or not at all. What it raises undoes them."""
        async with self._connection() as connection, _transaction(connection):

            async def ask(name: str, *arguments: Any) -> list[Row]:
                rows: list[Row] = await connection.fetch(query(name), *arguments)
                return rows

            yield ask

    async def _opened(self, rows: Iterable[asyncpg.Record]) -> list[Message]:
        return await self.content.opened_messages([_message(row) for row in rows])

    async def _fetch(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
        async with self._connection() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(query(name), *arguments)
            return rows


@asynccontextmanager
async def _transaction(connection: "PoolConnectionProxy[asyncpg.Record]") -> AsyncIterator[None]:
    """Ours, since asyncpg's rolls back whatever happened, and waits for a server that does not answer."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    except (asyncpg.PostgresError, M3Error):
        await transaction.rollback()
        raise
    await transaction.commit()


def _thread_settings(stored: str) -> ThreadSettings:
    """A newer room may have left settings that this one does not know, which must not stop the thread."""
    known = json.loads(stored)
    try:
        return ThreadSettings.model_validate(known)
    except ValidationError as error:
        strange = {problem["loc"][0] for problem in error.errors()}
        return ThreadSettings.model_validate({name: value for name, value in known.items() if name not in strange})


async def _record(connection: "PoolConnectionProxy[asyncpg.Record]", events: Sequence[Incoming]) -> Record:
    accepted = [event for event in events if isinstance(event, MessageAccepted)]
    by_id = {message.message_id: message for message in reversed(accepted)}  # of two with one id the first counts
    messages = [by_id[message_id] for message_id in dict.fromkeys(message.message_id for message in accepted)]
    replies = [message.message_id for message in messages if message.in_reply_to]
    summaries = [event for event in events if isinstance(event, ThreadSummarised)]

    await connection.execute(query("lock_threads"), list({event.thread_id for event in events}))
    recorded: list[asyncpg.Record] = []
    settled: list[asyncpg.Record] = []
    if messages:
        recorded = await connection.fetch(
            query("insert_messages"),
            [m.message_id for m in messages],
            [m.thread_id for m in messages],
            [m.source for m in messages],
            [m.content for m in messages],
            [m.interface for m in messages],
            [m.author for m in messages],
            [m.origin for m in messages],
            [array(m.in_reply_to) for m in messages],
            [m.cancelled for m in messages],
            [m.traceparent for m in messages],
            [m.sealed for m in messages],
            [None if m.terms is None else array(unpacked(m.terms)) for m in messages],
        )
    if replies:
        settled = await connection.fetch(query("settle_answered"), replies)
    for step in _steps(events):
        if changes := [change for event in step for change in _changes(event)]:
            settled += await connection.fetch(query("change_fates"), *columns(changes))
        if turns := [turn for event in step if (turn := _turn(event))]:
            await connection.execute(query("insert_turns"), *columns(turns))
    if summaries:
        await connection.execute(
            query("summarise"), *columns([(s.thread_id, s.until, s.text, s.sealed) for s in summaries])
        )
    told = {_change(row): (row["origin"], _message(row)) for row in settled}
    return Record(
        messages={row["message_id"]: _message(row) for row in recorded},
        settled=list(told.values()),
        known=frozenset(row["message_id"] for row in recorded if not row["fresh"]),
        changed=[told[_change(row)][1] for row in settled if row["fresh"]],
    )


def _change(row: asyncpg.Record) -> tuple[UUID, int, str]:
    """What tells one change of a fate from all others."""
    return row["message_id"], row["rev"], row["fate"]


def _steps(events: Sequence[Incoming]) -> list[list[Incoming]]:
    """The events in order, and one after the other where they change the same message: a failure that comes again must
    not hide that the message was asked for since."""
    steps: list[list[Incoming]] = [[]]
    touched: set[UUID] = set()
    for event in events:
        touches = {message_id for message_id, *_ in _changes(event)}
        if touches & touched:
            steps.append([])
            touched = set()
        touched |= touches
        steps[-1].append(event)
    return steps


def _changes(event: Incoming) -> Iterator[tuple[Any, ...]]:
    """A row of change_fates for each message that the event gives another fate."""
    if isinstance(event, TurnFailed | MessagesPassedOver):
        fate, reply_id = ("failed", None) if isinstance(event, TurnFailed) else (event.fate, event.reply_id)
        turn_id = event.turn.turn_id if event.turn else None
        for message_id in event.message_ids:
            yield message_id, event.thread_id, fate, event.reason, reply_id, turn_id, None
    elif isinstance(event, RetryAsked):
        yield event.message_id, event.thread_id, "pending", None, None, None, event.rev


def _turn(event: Incoming) -> tuple[Any, ...] | None:
    """The row of insert_turns for the turn that came to this."""
    turn: Turn | None
    reply_id: UUID | None
    match event:
        case MessageAccepted(turn=turn):
            outcome, reply_id, reason = "cancelled" if event.cancelled else "answered", event.message_id, None
        case TurnFailed(turn=turn):
            outcome, reply_id, reason = "failed", None, event.reason
        case MessagesPassedOver(turn=turn):
            outcome, reply_id, reason = "cancelled", None, event.reason
        case TurnInterrupted(turn=turn):
            outcome, reply_id, reason = "interrupted", None, None
        case _:
            return None
    if turn is None:
        return None
    return (
        turn.turn_id,
        event.thread_id,
        turn.lane,
        outcome,
        reply_id,
        turn.model,
        turn.started_at,
        turn.duration,
        turn.first_token,
        turn.prompt_tokens,
        turn.completion_tokens,
        turn.estimated,
        turn.attempts,
        reason,
    )


class ThreadLocks:
    """The threads that this process has taken, so that no other works on them.

    The locks belong to one database session and die with it: a killed process holds nothing, and one that hangs
    nothing for longer than ``LEASE``. When the session ends by itself ``on_loss`` is called: its threads may be
    another's from then on. A server that falls silent counts as gone before it would end the session.
    """

    def __init__(self, url: str, command_timeout: float = COMMAND_TIMEOUT) -> None:
        self.on_loss: Callable[[], None] = lambda: None
        self._url = url
        self._command_timeout = command_timeout
        self._session: asyncpg.Connection | None = None
        self._one_at_a_time = asyncio.Lock()
        self._taken: dict[str, asyncpg.Connection] = {}  # since one session may take its own lock twice

    def holds(self, thread_id: str) -> bool:
        """Whether the thread is ours, as far as is known."""
        return thread_id in self._taken

    async def take(self, thread_id: str) -> bool:
        """Whether the thread was free; if so it is ours until ``release``. Raises StoreUnavailable."""
        if thread_id in self._taken:
            return False
        with _translated():
            async with self._one_at_a_time:
                if thread_id in self._taken or not await self._ask("take_thread", thread_id):
                    return False
                if self._session is None or self._session.is_closed():  # in the moment of the answer
                    raise StoreUnavailable("The session that held the thread is gone.")
                self._taken[thread_id] = self._session
                return True

    async def release(self, thread_id: str) -> None:
        """Give the thread back. Does not raise: without the database the lock is gone anyway."""
        try:
            with _translated():
                async with self._one_at_a_time:
                    if self._taken.pop(thread_id, None) is not None:
                        await self._ask("release_thread", thread_id)
        except StoreUnavailable:
            log.warning("thread released with its session", thread_id=thread_id)

    async def keep(self) -> None:
        """Show that this process lives, for ever."""
        while True:
            await asyncio.sleep(LEASE / 3)
            if self._session is not None:
                try:
                    with _translated():
                        async with self._one_at_a_time:
                            await self._ask("keep_session")
                except StoreUnavailable as error:
                    log.warning("threads lost with their session", reason=str(error))

    def close(self) -> None:
        if self._session is not None:
            self._session.terminate()

    async def _ask(self, name: str, *arguments: str) -> bool:
        if self._session is None or self._session.is_closed():
            self._session = await _connect(self._url, LOCK_SETTINGS, self._command_timeout)
            self._session.add_termination_listener(self._lose)
        try:
            return bool(await self._session.fetchval(query(name), *arguments))
        except BaseException:
            self._session.terminate()  # what it holds now is unknown; its locks end with it
            raise

    def _lose(self, session: asyncpg.Connection) -> None:
        lost = [thread_id for thread_id, holder in self._taken.items() if holder is session]
        for thread_id in lost:
            del self._taken[thread_id]
        if lost:
            self.on_loss()


async def _leave_as_it_is(_: asyncpg.Connection) -> None:
    """Instead of asyncpg's clearing after every use: nothing here leaves a session changed, but for whom it speaks, and
    that it knows."""


@asynccontextmanager
async def open_store(  # noqa: PLR0913  # one of each setting
    url: str,
    *,
    pool_size: int,
    command_timeout: float = COMMAND_TIMEOUT,
    acquire_timeout: float = ACQUIRE_TIMEOUT,
    masters: Masters | None = None,
    searchable: bool = True,
) -> AsyncIterator[Store]:
    """The store at a PostgreSQL URL. Does not wait for the database, so that services start in any order. ``masters``:
    with what keys its content is sealed and opened; ``searchable``: whether it is told what it is found by."""
    pool = await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=pool_size,
        timeout=acquire_timeout,
        command_timeout=command_timeout,
        server_settings=SESSION_SETTINGS,
        connection_class=_Session,
        reset=_leave_as_it_is,
    )
    try:
        with metrics.counted(
            (metrics.POOL_CONNECTIONS.labels("idle"), pool.get_idle_size),
            (metrics.POOL_CONNECTIONS.labels("busy"), lambda: pool.get_size() - pool.get_idle_size()),
        ):
            yield Store(pool, url, command_timeout, acquire_timeout, masters, searchable=searchable)
    finally:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await pool.close()
        except TimeoutError:
            pool.terminate()


async def _connect(url: str, settings: dict[str, str], command_timeout: float = COMMAND_TIMEOUT) -> asyncpg.Connection:
    return await asyncpg.connect(
        url, timeout=ACQUIRE_TIMEOUT, command_timeout=command_timeout, server_settings=settings
    )


async def migrate(url: str) -> list[str]:
    """Bring the database's tables to this version; returns the migrations that this took. Any number of processes may
    do this at once. The second wall between tenants is made too, as far as this user may.

    Raises StoreUnavailable while the database is away; StartError when it will not have us, or has a migration that
    differs from ours.
    """
    try:
        with _translated():
            return await _migrate(url)
    except StoreUnavailable as error:
        if isinstance(error.__cause__, _REFUSALS):
            raise StartError(f"DATABASE_URL cannot be used: {error.__cause__}.") from error
        raise
    except ValueError:  # asyncpg's, of what it cannot take apart; it may repeat a piece of the password
        raise StartError("DATABASE_URL is not a PostgreSQL URL.") from None


async def _migrate(url: str) -> list[str]:
    done = []
    connection = await _connect(url, SESSION_SETTINGS, MIGRATION_TIMEOUT)
    try:
        async with connection.transaction():
            await connection.execute(query("lock_migrations"))
            await connection.execute(query("create_migrations"))
            applied = {row["version"]: row["checksum"] for row in await connection.fetch(query("applied_migrations"))}
            for migration in migrations():
                if migration.version not in applied:
                    await connection.execute(migration.statements)
                    await connection.execute(query("add_migration"), migration.version, migration.checksum)
                    log.info("database migrated", version=migration.version)
                    done.append(migration.version)
                elif applied[migration.version] != migration.checksum:
                    raise StartError(
                        f"The database's migration {migration.version} is not this version's; "
                        "it was changed after it was applied."
                    )
        if await connection.fetch(query("wall")):
            await _raise_wall(connection)
    finally:
        await connection.close(timeout=COMMAND_TIMEOUT)
    return done


async def _raise_wall(connection: asyncpg.Connection) -> None:
    """As far as this user may, and nobody does it in the same moment: the role is of the whole server, so others may be
    making it in their databases. What is lacking then is told to whoever needs it."""
    async with connection.transaction():
        await connection.execute(query("lock_migrations"))
        for row in await connection.fetch(query("wall")):
            with suppress(asyncpg.PostgresError):
                async with connection.transaction():
                    await connection.execute(row["statement"])


# ---- Looking at a database from outside

#: Seconds that each look at a database may take.
LOOK_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """``places`` is how many connections there may be; ``may_write`` is None where there are no tables yet. ``full``:
    whether its disk is. Its clock is ``ahead`` of this machine's by so many seconds, give or take ``uncertain``.
    ``migrations`` are those that it has, each with its checksum. ``wall``: what the second wall between tenants lacks,
    as the statements that make it; ``operators``: the tenants that have some, and whether one has signed in; None where
    there is no table."""

    version: str
    version_number: int
    read_only: bool
    full: bool
    may_create: bool
    may_write: bool | None
    connections: int
    places: int
    ahead: float
    uncertain: float
    migrations: dict[str, str]
    wall: list[str]
    operators: dict[str, bool] | None


async def look(url: str) -> DatabaseState:
    """See how a database is, and leave it so. Raises Unreached."""
    async with _looking(url) as session:
        before = datetime.now(UTC)
        found = dict(await session.fetchrow(query("look")))
        after = datetime.now(UTC)
        applied = await session.fetch(query("applied_migrations")) if found.pop("migrated") else []
        wall = [row["statement"] for row in await session.fetch(query("wall"))]
        operators = await _operators(session)
        full = not found["read_only"] and await _is_full(session)
    took = after - before
    return DatabaseState(
        full=full,
        ahead=(found.pop("now") - before - took / 2).total_seconds(),
        uncertain=took.total_seconds() / 2,
        migrations={row["version"]: row["checksum"] for row in applied},
        wall=wall,
        operators=operators,
        **found,
    )


async def _operators(session: asyncpg.Connection) -> dict[str, bool] | None:
    """None where there are no accounts yet, or none that this user may see."""
    try:
        return {row["tenant"]: row["came"] for row in await session.fetch(query("look_for_operators"))}
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
        return None


async def _is_full(session: asyncpg.Connection) -> bool:
    """Whether it takes no more. Who may make no temporary table is not told."""
    try:
        async with session.transaction():
            await session.execute(query("look_for_room"))
    except asyncpg.InsufficientPrivilegeError:
        return False
    except asyncpg.DiskFullError:
        return True
    return False


async def is_pooled(url: str) -> bool:
    """Whether two connections at a time share a session of the server, as a transaction pooler has them do: a lock of
    such a session is everybody's. Raises Unreached."""
    async with _looking(url) as one, _looking(url) as other:
        at_rest = await one.fetchval(query("session_pid"))
        async with other.transaction():
            return bool(await other.fetchval(query("session_pid")) == at_rest)


@asynccontextmanager
async def _looking(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A session as the room's are, but for statements that a pooler would lose."""
    try:
        async with asyncio.timeout(LOOK_TIMEOUT):
            session = await asyncpg.connect(url, server_settings=SESSION_SETTINGS, statement_cache_size=0)
            try:
                yield session
            finally:
                session.terminate()
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InsufficientPrivilegeError) as error:
        raise Unreached(f"It says: {error}.", "key") from error
    except asyncpg.InvalidCatalogNameError as error:
        raise Unreached(f"It says: {error}.", "place") from error
    except (asyncpg.TooManyConnectionsError, asyncpg.CannotConnectNowError) as error:
        raise Unreached(f"It says: {error}.", "busy") from error
    except asyncpg.ProtocolViolationError as error:
        raise Unreached(f"It says: {error}.", "pooler") from error
    except asyncpg.PostgresError as error:
        raise Unreached(f"It says: {error}.", "other") from error
    except ValueError:  # asyncpg's, of what it cannot take apart; it may repeat a piece of the password
        raise Unreached("It is not a PostgreSQL URL.", "url") from None
    except (*_CONFUSED, OSError) as error:  # a TimeoutError too
        raise Unreached.because_of(error) from error
