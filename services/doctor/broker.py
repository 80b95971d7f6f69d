"""The broker: whether it can be had and takes messages, and whether the room's queues are there and somebody is at
them."""

import asyncio
import re
from collections.abc import Mapping

from m3.bus.interface import QueueState
from m3.bus.rabbit import RabbitLook
from m3.errors import Obstacle, Unreached
from m3.topology import AGENT_API, AGENT_USER, DEAD, EXCHANGES, QUEUES, RECORDER, Exchange, Queue
from services.doctor.findings import Finding, shown, unreached

#: The oldest RabbitMQ that the room runs on.
OLDEST = 3, 10
#: Messages that wait in a queue past which somebody is behind.
DEEP = 1_000

_ADVICE: Mapping[Obstacle, str] = {
    "url": "Write BROKER_URL as amqp://user:password@host:5672/vhost.",
    "name": "Correct the host in BROKER_URL; between containers it is the name of the other service, as long as "
    "that one runs.",
    "away": "Start RabbitMQ, or correct host and port in BROKER_URL; in a container localhost is that container.",
    "silent": "Look whether RabbitMQ hangs, or a firewall swallows what is sent; its port is 5672, with TLS 5671.",
    "tls": "Have amqps:// and port 5671 in BROKER_URL only where RabbitMQ speaks TLS, with a trusted certificate.",
    "key": "Correct user and password in BROKER_URL (/ and @ are written %2F and %40) or in the file "
    "/run/secrets/broker_password; the user guest is let in only "
    "from RabbitMQ's own machine.",
    "place": "Correct the path of BROKER_URL, or make the virtual host (rabbitmqctl add_vhost) and let the user in "
    "(rabbitmqctl set_permissions).",
}
_OTHERWISE = "Look into RabbitMQ's log."
#: Who consumes from a queue, and what it means that nobody does.
_CONSUMERS = {
    RECORDER.name: ("recorder", "messages are not recorded"),
    AGENT_USER.name: ("agent", "nobody answers people"),
    AGENT_API.name: ("agent", "nobody answers programs"),
}


async def broker(url: str) -> list[Finding]:
    if url.startswith("memory:"):
        return [Finding("broker", "skipped", "the bus is inside the one process of `m3 up` (BROKER_URL is memory://)")]
    where = shown(url)
    try:
        async with RabbitLook.open(url) as look:
            running = version(look.product, look.version, where)
            flowing = await _messages(look)
            return [running, flowing, *await _topology(look)]
    except Unreached as error:
        return [
            unreached("broker", where, error, _ADVICE.get(error.obstacle, _OTHERWISE)),
            Finding("queues", "skipped", "the broker was not reached"),
        ]


def version(product: str, told: str, where: str) -> Finding:
    found = f"{product} {told} at {where}"
    number = re.match(r"(\d+)\.(\d+)", told)
    if product != "RabbitMQ" or number is None:
        return Finding("broker", "warning", found, "The room is only known to run on RabbitMQ.")
    if (int(number[1]), int(number[2])) < OLDEST:
        return Finding("broker", "wrong", found, "Upgrade RabbitMQ to 3.10 or newer.")
    return Finding("broker", "ok", found)


async def _messages(look: RabbitLook) -> Finding:
    try:
        took = await look.round_trip()
    except Unreached as error:
        return unreached("messages", "a message did not come back", error, _OTHERWISE)
    if took is None:
        return Finding(
            "messages",
            "wrong",
            "the broker takes none: it is short of memory or disk",
            "See which with `rabbitmqctl status` (alarms), and give it more; then all goes on by itself.",
        )
    return Finding("messages", "ok", f"one went to the broker and back in {took * 1000:.0f} ms")


async def _topology(look: RabbitLook) -> list[Finding]:
    """Side by side: one queue that does not answer must not take the time of the others."""
    looks = [*(_exchange(look, each) for each in EXCHANGES), *(_queue(look, each) for each in QUEUES)]
    found = await asyncio.gather(*looks)
    exchanges, queues = found[: len(EXCHANGES)], found[len(EXCHANGES) :]
    wrong = [each for each in exchanges if each.mark != "ok"]
    return [*(wrong or [Finding("exchanges", "ok", f"all {len(EXCHANGES)} are there")]), *queues]


async def _exchange(look: RabbitLook, exchange: Exchange) -> Finding:
    check = f"exchange {exchange.name}"
    try:
        refusal = await look.exchange(exchange)
    except Unreached as error:
        return unreached(check, "it cannot be looked at", error, _OTHERWISE)
    if refusal is None:
        return _missing(check)
    return _refused(check, "exchange", refusal) if refusal else Finding(check, "ok", "it is there")


async def _queue(look: RabbitLook, queue: Queue) -> Finding:
    try:
        return queue_found(queue, await look.queue(queue))
    except Unreached as error:
        advice = "Look whether the nodes that have it run (`rabbitmq-queues quorum_status`), and into RabbitMQ's log."
        return unreached(f"queue {queue.name}", "it cannot be looked at", error, advice)


def queue_found(queue: Queue, state: QueueState | None) -> Finding:
    check = f"queue {queue.name}"
    if state is None:
        return _missing(check)
    if state.refusal:
        return _refused(check, "queue", state.refusal)
    if queue is DEAD:
        return _dead_letters(check, state.waiting)
    service, harm = _CONSUMERS[queue.name]
    found = f"{_count(state.waiting, 'message')} waiting, {_count(state.consumers, 'consumer')}"
    if not state.consumers:
        return Finding(check, "wrong", f"{found}: {harm}", f"Start a process of `m3 {service}`, or look into its log.")
    if state.waiting > DEEP:
        advice = f"Look again: where it grows, start more of `m3 {service}`, or see in their logs what holds them up."
        return Finding(
            check, "warning", f"{found}: they are behind (more than {queue.max_length:,} is refused)", advice
        )
    return Finding(check, "ok", found)


def _dead_letters(check: str, waiting: int) -> Finding:
    if not waiting:
        return Finding(check, "ok", "nothing was put aside")
    return Finding(
        check,
        "warning",
        f"{_count(waiting, 'message')} put aside that could not be read or stored",
        "Look at them in RabbitMQ's management page (queue dead, Get messages): the headers m3-reason and m3-queue say "
        "why and where from. What is not needed is purged there.",
    )


def _missing(check: str) -> Finding:
    advice = "Start any process of the room: each makes what is missing, at its start and every 30 s."
    return Finding(check, "wrong", "it is not there", advice)


def _refused(check: str, kind: str, refusal: str) -> Finding:
    if "ACCESS_REFUSED" in refusal:
        advice = "Give the user in BROKER_URL the rights to configure, write and read (rabbitmqctl set_permissions)."
    else:
        advice = (
            f"No process can start with it so. Stop them, save what the {kind} holds, and delete it: they make it anew."
        )
    return Finding(check, "wrong", refusal.removesuffix("."), advice)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
