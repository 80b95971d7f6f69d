"""What can be set for one thread, over what the room has set for all."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from m3.events import OutsideText

#: What the agent makes of what waits in a lane. ``each``: a reply to every message; ``coalesce``: one to all that
#: gathered; ``interrupt``: as coalesce, and a new message breaks off the turn that runs; ``ignore``: none.
Policy = Literal["each", "coalesce", "interrupt", "ignore"]
#: What becomes of messages while the agent is paused.
Pause = Literal["wait", "ignore"]

#: Longest times that can be set, in seconds.
DAY = 24 * 3600
#: Most messages of programs that may be let wait in a thread: they are read before every turn.
MAX_CAP = 1_000
#: Longest system prompt of a thread, in characters.
MAX_PROMPT = 16 * 1024


class ThreadSettings(BaseModel):
    """What is null is as the room has it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    system_prompt: Annotated[OutsideText, Field(max_length=MAX_PROMPT)] | None = None
    """What the agent is told before every turn."""
    user_policy: Policy | None = None
    """What people's messages get: `each` a reply of its own, `coalesce` one to all that gathered, `interrupt` the same
    and at once, breaking off the turn that runs, `ignore` none."""
    api_policy: Policy | None = None
    """The same for programs' messages."""
    pause: Pause | None = None
    """Someone else speaks for the agent: messages `wait` for its return, or it is to `ignore` them."""
    api_ttl: Annotated[float, Field(ge=0.001, le=DAY)] | None = None
    """Seconds after which a program's message is too old to be answered."""
    api_cap: Annotated[int, Field(ge=1, le=MAX_CAP)] | None = None
    """Most messages of programs that wait; past it the oldest get no reply."""
    batch_messages: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Most messages that one reply answers."""
    merge_window: Annotated[float, Field(ge=0, le=DAY)] | None = None
    """Seconds in which a text that programs repeat is answered once."""
