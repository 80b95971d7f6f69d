"""What a credential says of each message, so that the message need not, and cannot say otherwise."""

from m3.access.principals import Principal
from m3.access.rules import SPEAKS_AS, Action
from m3.errors import Forbidden
from m3.events import ANYONE, OutsideSource

_REFUSALS: dict[OutsideSource, str] = {
    "user": "Speaking as api takes a producer key.",
    "api": "A producer key speaks as api.",
}


def source_of(principal: Principal, source: OutsideSource, *, told: bool) -> OutsideSource:
    """The source of the principal's message. ``told``: the message names its ``source`` itself, and not the door where
    none was named. Raises Forbidden where it names one that is not its sender's."""
    own = SPEAKS_AS.get(principal.kind, source)
    if told and source != own:
        raise Forbidden(_REFUSALS[own])
    return own


def action_of(source: OutsideSource) -> Action:
    return Action.SPEAK if source == "user" else Action.FEED


def sender_of(principal: Principal, name: str) -> str:
    """Within whose idempotency keys the key of a message is looked for: those of this principal, and of nobody else
    whatever ``name`` they give."""
    return name if principal.id is None else f"{principal.tenant}/{principal.id}/{name}"


def author_of(principal: Principal, name: str) -> str | None:
    """Whom the principal's messages name as their author: the principal, and only where nobody is asked who they are
    ``name``, by which they call themselves."""
    if principal.id is not None:
        return principal.name
    return None if name == ANYONE else name
