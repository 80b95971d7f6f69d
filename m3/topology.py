"""Exchanges, queues, and who hears what. Both buses and the tests read these lines.

gateway, pusher, agent ──accepted()──▶ chat.in ──▶ recorder
recorder ──announced(lane, thread)──▶ chat.out ─┬▶ agent.user   (every user message)
                                                ├▶ agent.api    (every api message)
                                                └▶ one private queue a pusher (every lane of its threads)
recorder ──told(origin)──▶ the private queue of the process that accepted the message
agent ──knocked(lane, thread)──▶ chat.out, as a message of the lane would: for what waits unheard of
recorder ──changed(thread)──▶ chat.out ──▶ its pushers: fates
agent ──thinking(thread)──▶ chat.out ──▶ its pushers, and gateways whose callers read along: turns and their text
gateway, pusher ──asked_to_cancel(thread)──▶ chat.control ──▶ one private queue an agent
gateway, pusher ──asked_to_retell(thread)──▶ chat.control ──▶ another private queue an agent
agent ──retold(origin)──▶ the private queue of the process that asked: the turn so far
pusher ──counted(itself)──▶ chat.control ──▶ one private queue a pusher: what sockets each has
whatever is refused or delivered too often ──▶ chat.dead ──▶ dead
"""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from m3.events import Lane, OutsideSource, ThreadKey

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Exchange:
    name: str
    kind: Literal["fanout", "topic", "direct"]


#: What cannot be understood is rejected by name; the limit is only for a message that kills its consumer again and
#: again, and high, since each such death, and each connection that breaks, counts for the whole prefetch.
DELIVERY_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue that its consumers share.

    A message that comes back unacked more than ``delivery_limit`` times goes to the dead-letter exchange; while
    ``max_length`` messages wait, or ``max_bytes`` of bodies, a publish is refused. Nothing of this ever changes:
    RabbitMQ refuses whoever declares a queue otherwise than it is, as one version would beside another. There may be
    ``bindings`` more, but never fewer.
    """

    name: str
    exchange: Exchange
    bindings: tuple[str, ...]
    max_length: int
    max_bytes: int = 256 * MIB
    delivery_limit: int | None = DELIVERY_LIMIT
    dead_letters: bool = True


@dataclass(frozen=True, slots=True)
class Route:
    """Where a publish goes. One that ``must_arrive`` is stored durably and refused when no queue takes it; any other
    is news, which may be lost. What comes too often to be ``confirmed`` is published without knowing more than that it
    was sent."""

    exchange: str
    key: str
    must_arrive: bool
    confirmed: bool = True


CHAT_IN = Exchange("chat.in", "fanout")
CHAT_OUT = Exchange("chat.out", "topic")
CHAT_CONTROL = Exchange("chat.control", "topic")
CHAT_DEAD = Exchange("chat.dead", "fanout")
EXCHANGES = (CHAT_IN, CHAT_OUT, CHAT_CONTROL, CHAT_DEAD)


def _of_all(lane: str) -> tuple[str, ...]:
    """The binding keys of who hears all threads: the default tenant's, and those that have their tenant before them."""
    return f"{lane}.*", f"{lane}.*.*"


#: Short, since whoever waits for a record gives up after seconds: better refused at once than recorded unheard.
RECORDER = Queue("recorder", CHAT_IN, bindings=("",), max_length=20_000)
AGENT_USER = Queue("agent.user", CHAT_OUT, bindings=_of_all("user"), max_length=100_000)
AGENT_API = Queue("agent.api", CHAT_OUT, bindings=_of_all("api"), max_length=100_000)
DEAD = Queue("dead", CHAT_DEAD, bindings=("",), max_length=100_000, delivery_limit=None, dead_letters=False)
QUEUES = (RECORDER, AGENT_USER, AGENT_API, DEAD)

#: A private queue holds at most so much; past it the oldest is dropped, and its owner finds the gap.
PRIVATE_MAX_LENGTH = 10_000
PRIVATE_MAX_BYTES = 64 * MIB


def accepted() -> Route:
    """The one door in."""
    return Route(CHAT_IN.name, "", must_arrive=True)


def announced(lane: Lane, thread_id: ThreadKey) -> Route:
    """The one door out. What people and programs say must reach an agent; a reply may find nobody listening."""
    return Route(CHAT_OUT.name, f"{lane}.{thread_id}", must_arrive=lane != "assistant")


def knocked(lane: OutsideSource, thread_id: ThreadKey) -> Route:
    """An announcement of nothing, so that an agent of the lane looks into the thread. Pushers find it empty."""
    return announced(lane, thread_id)


def changed(thread_id: ThreadKey) -> Route:
    """News for the thread's pushers alone: no agent is bound to it."""
    return Route(CHAT_OUT.name, f"change.{thread_id}", must_arrive=False)


def thinking(thread_id: ThreadKey) -> Route:
    """What the agent does in the thread just now. One lane for all of it, so that it keeps its order."""
    return Route(CHAT_OUT.name, f"turn.{thread_id}", must_arrive=False, confirmed=False)


def asked_to_cancel(thread_id: ThreadKey) -> Route:
    """To every agent, since nobody knows which one is at the thread."""
    return Route(CHAT_CONTROL.name, f"cancel.{thread_id}", must_arrive=False)


def asked_to_retell(thread_id: ThreadKey) -> Route:
    """To every agent, likewise. Where that is lost, whoever asked hears the turn from then on."""
    return Route(CHAT_CONTROL.name, f"retell.{thread_id}", must_arrive=False, confirmed=False)


#: The binding keys of an agent that hears all that it is asked.
EVERY_CANCELLATION = _of_all("cancel")
EVERY_RETELLING = _of_all("retell")


def counted(pusher: UUID) -> Route:
    """What sockets a pusher has, to every pusher. What is lost shows as a gap in its numbers."""
    return Route(CHAT_CONTROL.name, f"sockets.{pusher}", must_arrive=False, confirmed=False)


#: The binding key of a pusher that hears of every pusher's sockets.
EVERY_COUNT = "sockets.*"


def told(origin: str) -> Route:
    """To one process, which may be gone by now."""
    return Route("", origin, must_arrive=False)


def retold(origin: str) -> Route:
    """To one process, in its place among the news of the turn: what one channel carries into one queue keeps its order,
    through whichever exchanges."""
    return Route("", origin, must_arrive=False, confirmed=False)


def every_lane(thread_id: ThreadKey) -> str:
    """The binding key of a pusher that has sockets for the thread."""
    return f"*.{thread_id}"
