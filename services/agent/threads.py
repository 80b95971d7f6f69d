"""Works on threads: takes one, has turns in it as its rules want, and gives it back."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import Enum, auto

import structlog

from m3 import metrics
from m3.errors import StoreUnavailable
from m3.events import MessagesPassedOver, OutsideSource
from m3.settings import Settings
from m3.store import Mailbox, Mark, Store, ThreadLocks
from m3.threads import MAX_CAP
from services.agent.ear import Ear
from services.agent.places import Places
from services.agent.policy import PassedOver, Plan, Rules, plan
from services.agent.settling import Settler
from services.agent.tokens import Count
from services.agent.turn import Turns

#: Seconds between attempts while the database or the broker is away.
RETRY_INTERVAL = 0.5
#: Seconds after which a thread that does not fall quiet goes to the end of the queue, at the end of its turn: threads
#: with much to answer would otherwise keep all others waiting. (And RabbitMQ ends the channel of a consumer that holds
#: a delivery for half an hour.)
MAX_HOLD = 2.0
#: Most messages of programs that are looked at together: so many that, where there are more, some are shed.
MAILBOX = 2 * MAX_CAP
#: Seconds for which the oldest message of a turn may have waited while it is interrupted: somebody who never falls
#: silent would otherwise never be answered.
MAX_INTERRUPTED = 30.0
#: Threads that are known to have been paused, at most.
PAUSED = 10_000

log = structlog.get_logger(__name__)


class Found(Enum):
    """How a knock found a thread, or left it."""

    QUIET = auto()  # there is nothing to do in it
    TAKEN = auto()  # another knock's: that one sees to all that waits
    PEOPLE_WAIT = auto()
    PROGRAMS_WAIT = auto()


WAITS: Mapping[OutsideSource, Found] = {"user": Found.PEOPLE_WAIT, "api": Found.PROGRAMS_WAIT}


@dataclass(slots=True)
class Threads:
    """The threads that one agent is at, each with a place of so many."""

    store: Store
    locks: ThreadLocks
    ear: Ear
    turns: Turns
    settler: Settler
    count: Count
    settings: Settings
    stopping: bool = False
    places: Places = field(init=False)
    _at: set[str] = field(default_factory=set)
    _paused: set[str] = field(default_factory=set)  # when they were visited last
    _told_of_lack: bool = False

    def __post_init__(self) -> None:
        self.places = Places(self.settings.agent_concurrency, self.settings.user_turns_in_a_row)
        self.locks.on_loss = self._drop_lost

    def stop(self) -> None:
        self.stopping = True
        self.settler.stop()
        self.places.open()

    def _drop_lost(self) -> None:
        """No thread may have two turns at once, and these may be another's already."""
        for thread_id in self._at:
            if not self.locks.holds(thread_id):
                self.turns.stop(thread_id, "interrupted")

    async def work_on(self, thread_id: str, lane: OutsideSource) -> Found:
        """Take turns in the thread until it is quiet or we must let it go. ``lane``: whose place it takes."""
        now = asyncio.get_running_loop().time
        async with self.places.taken(lane):
            enough = now() + MAX_HOLD
            while not self.stopping and now() < enough:
                try:
                    return await self._visit(thread_id, lane, enough)
                except StoreUnavailable as error:
                    log.warning("thread put off", thread_id=thread_id, reason=str(error))
                    await asyncio.sleep(RETRY_INTERVAL)
            return WAITS[lane]

    async def _visit(self, thread_id: str, lane: OutsideSource, enough: float) -> Found:
        if thread_id in self._at:
            return Found.TAKEN
        if thread_id in self._paused and await self._is_still_paused(thread_id):
            return Found.QUIET
        self._at.add(thread_id)
        try:
            found, mark = await self._hold(thread_id, lane, enough)
        finally:
            self._at.discard(thread_id)
        # Looked for only now: a knock that came before found the thread taken.
        if found is Found.QUIET and await self.store.mailbox_mark(thread_id) != mark:
            people_wait = await self.store.waiting_count(thread_id, "user", at_most=1)
            return Found.PEOPLE_WAIT if people_wait else Found.PROGRAMS_WAIT
        return found

    async def _is_still_paused(self, thread_id: str) -> bool:
        """A look at the settings alone: each message knocks, also at a thread that nobody may answer in."""
        _, own = await self.store.mailbox_mark(thread_id)
        if Rules.of(self.settings, own).pause == "wait":
            return True
        self._paused.discard(thread_id)
        return False

    async def _hold(self, thread_id: str, lane: OutsideSource, enough: float) -> tuple[Found, Mark | None]:
        """Work on the thread while no other agent can."""
        if not await self.locks.take(thread_id):
            return Found.TAKEN, None
        try:
            async with AsyncExitStack() as nearness:
                result = await self._take_turns(thread_id, lane, enough, nearness)
        except StoreUnavailable:
            await self.locks.release(thread_id)
            raise
        # Where we are cancelled the locks end with their session, and no time is lost on a silent database.
        await self.locks.release(thread_id)
        return result

    async def _take_turns(
        self, thread_id: str, lane: OutsideSource, enough: float, nearness: AsyncExitStack
    ) -> tuple[Found, Mark | None]:
        """How the thread is left, and the mark that its mailbox had then."""
        taken, near = 0, False
        while True:
            mailbox = await self.store.mailbox(thread_id, MAILBOX, of_people=self.settings.batch_messages)
            rules = Rules.of(self.settings, mailbox.settings)
            if "interrupt" in rules.policies.values() and not near:
                await nearness.enter_async_context(self.ear.near(thread_id))
                near = True
                continue  # with a mailbox that has all that was not heard
            next_step = await self._plan(thread_id, mailbox, rules)
            if not (next_step.turn or next_step.passed_over):
                if rules.pause == "wait" and len(self._paused) < PAUSED:
                    self._paused.add(thread_id)
                return Found.QUIET, mailbox.mark
            for passed_over in next_step.passed_over:
                await self._pass_over(thread_id, passed_over)
            if next_step.turn and not (next_step.passed_over and _is_full(mailbox)):
                if not self._may_begin(next_step, mailbox, lane, first=not taken, enough=enough):
                    return _waits(mailbox), None
                await self._take(next_step, mailbox, rules)
                taken += 1
            if self.stopping or not self.locks.holds(thread_id):
                return _waits(mailbox), None

    def _may_begin(self, next_step: Plan, mailbox: Mailbox, lane: OutsideSource, *, first: bool, enough: float) -> bool:
        """Whether the turn is ours to take. The first of a visit is, or a thread that takes long to be read would never
        have one, unless only programs wait in the thread, it has a place for people, and people wait for one."""
        if self.stopping:
            return False
        programs_turn = next_step.lane == "api" and self.places.wanted("user")
        if first:
            return not (programs_turn and lane == "user" and _waits(mailbox) is Found.PROGRAMS_WAIT)
        return not programs_turn and asyncio.get_running_loop().time() < enough

    async def _plan(self, thread_id: str, mailbox: Mailbox, rules: Rules) -> Plan:
        if not rules.pause and await self._lacks_key(mailbox):
            return Plan()
        ages = [one.age for one in mailbox.waiting if one.message.source == "api"]
        if not ages or rules.pause:
            return plan(mailbox.waiting, rules, count=self.count)
        answered = []
        if rules.merges:
            oldest = min(max(ages), rules.api_ttl)
            answered = await self.store.recent_answers(thread_id, rules.merge_window + oldest)
        in_a_row = self.settings.user_turns_in_a_row
        people_had_theirs = False
        if len(ages) < len(mailbox.waiting):  # people wait too
            people_had_theirs = await self.store.last_lanes(thread_id, in_a_row) == ["user"] * in_a_row
        return plan(mailbox.waiting, rules, count=self.count, answered=answered, programs_are_due=people_had_theirs)

    async def _lacks_key(self, mailbox: Mailbox) -> bool:
        """Whether something waits that another agent may be able to read, and this one is not. What does not open with
        the thread's key never will."""
        threads = {one.message.thread_id for one in mailbox.waiting if one.message.sealed}
        lacking = threads - (await self.store.content.keys(threads)).keys()
        if lacking and not self._told_of_lack:
            self._told_of_lack = True
            log.warning("what waits is left to agents that have its key in CONTENT_KEYS", thread_id=min(lacking))
        return bool(lacking)

    async def _pass_over(self, thread_id: str, passed_over: PassedOver) -> None:
        if await self.settler.settle(
            MessagesPassedOver(
                thread_id=thread_id,
                message_ids=passed_over.message_ids,
                fate=passed_over.fate,
                reason=passed_over.reason,
                reply_id=passed_over.reply_id,
                origin=self.settler.origin,
            )
        ):
            metrics.PASSED_OVER.labels(passed_over.fate).inc(len(passed_over.message_ids))

    async def _take(self, next_step: Plan, mailbox: Mailbox, rules: Rules) -> None:
        thread_id = next_step.turn[0].thread_id
        oldest = max(one.age for one in mailbox.waiting if one.message in next_step.turn)
        newest, _ = mailbox.mark
        lanes = rules.interrupting(next_step.lane)
        if next_step.full:  # then a message of the same lane could not join it
            lanes.discard(next_step.lane)
        with self.ear.interrupting(thread_id, lanes, after=newest, within=MAX_INTERRUPTED - oldest) as interrupted:

            def may_begin() -> bool:
                return self.locks.holds(thread_id) and not self.stopping and not interrupted()

            await self.turns.take(next_step, mailbox.settings, may_begin)


def _is_full(mailbox: Mailbox) -> bool:
    """Whether more of programs may wait than was read."""
    return sum(one.message.source == "api" for one in mailbox.waiting) >= MAILBOX


def _waits(mailbox: Mailbox) -> Found:
    people = any(one.message.source == "user" for one in mailbox.waiting)
    return Found.PEOPLE_WAIT if people else Found.PROGRAMS_WAIT
