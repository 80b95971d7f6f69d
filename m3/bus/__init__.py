"""The message bus, chosen by the scheme of its URL."""

from contextlib import AbstractAsyncContextManager

from m3.bus.interface import Bus, Consumer, Delivery, Subscription
from m3.errors import StartError

__all__ = ["Bus", "Consumer", "Delivery", "Subscription", "open_bus"]


def open_bus(url: str, *, publish_timeout: float = 5.0, heartbeat: int = 10) -> AbstractAsyncContextManager[Bus]:
    """``memory://`` stays in this process; ``amqp://`` and ``amqps://`` are RabbitMQ.

    ``publish_timeout``: seconds that a publish may take, waiting for a connection included. ``heartbeat``: seconds
    between signs of life; a dead peer is noticed after three.
    """
    scheme = url.partition("://")[0]
    if scheme == "memory":
        from m3.bus.memory import MemoryBus

        return MemoryBus.open()
    if scheme in ("amqp", "amqps"):
        from m3.bus.rabbit import RabbitBus

        return RabbitBus.open(url, publish_timeout=publish_timeout, heartbeat=heartbeat)
    raise StartError("BROKER_URL must begin with memory://, amqp:// or amqps://.")  # it is not told: it has a password
