"""Whoever begins to hear a thread in the middle of a turn has it told from its start."""

from contextlib import suppress

from m3 import topology
from m3.bus import Bus, Subscription
from m3.errors import BusError
from m3.events import RetellingAsked, encode


async def ask_to_retell(bus: Bus, thread_id: str, subscription: Subscription) -> None:
    """Have the agent that is at the thread, if one is, tell this subscription its turn so far. What it says meanwhile
    follows in order. News, which may be lost, and that nobody waits for while the bus is away."""
    if bus.connected:
        asked = RetellingAsked(thread_id=thread_id, origin=subscription.name)
        with suppress(BusError):
            await bus.publish(topology.asked_to_retell(thread_id), encode([asked]))
