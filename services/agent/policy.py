"""What becomes of what waits in a thread: a mailbox and its rules in, a plan out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from m3.events import Message, OutsideSource, PassedOverFate
from m3.settings import Settings
from m3.store import Waiting
from m3.threads import Pause, Policy, ThreadSettings

_WHO: Mapping[OutsideSource, str] = {"user": "people", "api": "programs"}


@dataclass(frozen=True, slots=True)
class Rules:
    """How the agent deals with a thread. Times are in seconds; see the settings of the same names."""

    policies: Mapping[OutsideSource, Policy]
    pause: Pause | None
    api_ttl: float
    api_cap: int
    batch_messages: int
    batch_tokens: int
    merge_window: float

    @classmethod
    def of(cls, room: Settings, thread: ThreadSettings) -> "Rules":
        """The room's, but for what the thread has of its own."""
        window = room.merge_window if thread.merge_window is None else thread.merge_window
        return cls(
            policies={
                "user": thread.user_policy or room.user_policy,
                "api": thread.api_policy or room.api_policy,
            },
            pause=thread.pause,
            api_ttl=thread.api_ttl or room.api_ttl,
            api_cap=thread.api_cap or room.api_cap,
            batch_messages=thread.batch_messages or room.batch_messages,
            batch_tokens=room.batch_tokens,
            merge_window=window,
        )

    @property
    def merges(self) -> bool:
        return self.merge_window > 0 and self.policies["api"] in {"coalesce", "interrupt"}

    def interrupting(self, running: OutsideSource) -> set[OutsideSource]:
        """The lanes whose new messages break off a turn of the lane ``running``. Programs never break off people's."""
        lanes: set[OutsideSource] = {running, "user"}
        return {lane for lane in lanes if self.policies[lane] == "interrupt"}


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Messages that get a fate without a turn. ``reply_id``: the reply that they share, where they are merged."""

    fate: PassedOverFate
    reason: str
    message_ids: tuple[UUID, ...]
    reply_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now: first the messages that are passed over, then one turn, if there is one. ``full``: no other
    message could join it."""

    passed_over: tuple[PassedOver, ...] = ()
    turn: tuple[Message, ...] = ()
    full: bool = False

    @property
    def lane(self) -> OutsideSource:
        return "api" if self.turn[0].source == "api" else "user"


def plan(
    waiting: Sequence[Waiting],
    rules: Rules,
    *,
    count: Callable[[str], int],
    answered: Iterable[Message] = (),
    programs_are_due: bool = False,
) -> Plan:
    """``waiting``: oldest first. ``count``: tokens of a text. ``answered``: what programs said and had answered lately.
    ``programs_are_due``: people had their turns for now."""
    if rules.pause == "wait":
        return Plan()
    if rules.pause == "ignore":
        return Plan(_passed("ignored", "The agent is paused in this thread.", [one.message for one in waiting]))
    unreadable = [one.message for one in waiting if one.message.sealed]
    passed = _passed("ignored", "It cannot be read.", unreadable)
    waiting = [one for one in waiting if not one.message.sealed]
    lanes: dict[OutsideSource, list[Message]] = {}
    for lane in _WHO:
        lanes[lane] = [one.message for one in waiting if one.message.source == lane]
        if rules.policies[lane] == "ignore":
            passed += _passed("ignored", f"The agent does not answer {_WHO[lane]} in this thread.", lanes[lane])
            lanes[lane] = []
    if lanes["api"]:
        again = [message for message in lanes["api"] if message.rev > message.seq]  # asked for anew, so not in vain
        first_time = [one for one in waiting if one.message.source == "api" and one.message not in again]
        merged, first_time = _without_repeated(first_time, rules, answered)  # first: they waited for that very reply
        stale, fresh = _without_stale(first_time, rules)
        excess, fresh = _without_excess(fresh, rules)
        passed += stale + merged + excess
        lanes["api"] = again + fresh
    chosen: OutsideSource = "api" if lanes["api"] and (programs_are_due or not lanes["user"]) else "user"
    turn, full = _turn(lanes[chosen], chosen, rules, count)
    return Plan(passed, turn, full)


_Split = tuple[tuple[PassedOver, ...], list[Message]]


def _passed(
    fate: PassedOverFate, reason: str, messages: Sequence[Message], reply_id: UUID | None = None
) -> tuple[PassedOver, ...]:
    if not messages:
        return ()
    return (PassedOver(fate, reason, tuple(message.message_id for message in messages), reply_id),)


def _without_stale(waiting: Sequence[Waiting], rules: Rules) -> _Split:
    stale = [one.message for one in waiting if one.age > rules.api_ttl]
    fresh = [one.message for one in waiting if one.age <= rules.api_ttl]
    return _passed("expired", f"It waited for more than {rules.api_ttl:g} seconds.", stale), fresh


def _without_repeated(
    waiting: Sequence[Waiting], rules: Rules, answered: Iterable[Message]
) -> tuple[tuple[PassedOver, ...], list[Waiting]]:
    """What says the same as something that was answered lately shares its reply."""
    said: dict[str, list[Message]] = {}
    for earlier in answered if rules.merges else ():
        if earlier.sealed:  # what it said cannot be read
            continue
        said.setdefault(_gist(earlier), []).append(earlier)
    merged: dict[UUID, list[Message]] = {}
    others = []
    for one in waiting:
        message = one.message
        twin = next((other for other in said.get(_gist(message), ()) if _repeats(message, other, rules)), None)
        if twin is not None and twin.reply_id is not None:
            merged.setdefault(twin.reply_id, []).append(message)
        else:
            others.append(one)
    reason = "It says the same as a message before it, and shares its reply."
    passed = tuple(one for reply_id, some in merged.items() for one in _passed("merged", reason, some, reply_id))
    return passed, others


def _without_excess(messages: list[Message], rules: Rules) -> _Split:
    excess = max(0, len(messages) - rules.api_cap)
    reason = f"More than {rules.api_cap} messages of programs waited in this thread."
    return _passed("shed", reason, messages[:excess]), messages[excess:]


def _turn(
    messages: Sequence[Message], lane: OutsideSource, rules: Rules, count: Callable[[str], int]
) -> tuple[tuple[Message, ...], bool]:
    """The messages that the turn answers, and whether it is full."""
    if rules.policies[lane] == "each":
        return tuple(messages[:1]), bool(messages)
    merges = lane == "api" and rules.merges
    batch: list[Message] = []
    said: dict[str, Message] = {}
    tokens = 0
    for message in messages:
        twin = said.setdefault(_gist(message), message) if merges else message
        if twin is not message and _repeats(message, twin, rules):
            continue  # it stays until its twin is answered, and then shares the reply
        tokens += count(message.content)
        if batch and tokens > rules.batch_tokens:
            return tuple(batch), True
        batch.append(message)
        if len(batch) == rules.batch_messages:
            return tuple(batch), True
    return tuple(batch), False


def _gist(message: Message) -> str:
    """What two messages have in common that say the same."""
    return " ".join(message.content.split()).casefold()


def _repeats(message: Message, earlier: Message, rules: Rules) -> bool:
    return abs(message.timestamp - earlier.timestamp).total_seconds() <= rules.merge_window
