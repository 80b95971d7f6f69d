"""Who asks for something."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from m3.tenants import DEFAULT

#: ``person``: has an account; ``operator``: has one that may also see to others' accounts, keys and threads of its
#: tenant; ``program``: has a producer key; ``anyone``: whoever reaches a room that asks nobody who they are.
Kind = Literal["person", "operator", "program", "anyone"]


@dataclass(frozen=True, slots=True)
class Principal:
    """``id``: the account's or the key's; ``name``: what others know it by, and what its messages name as their author.
    ``sign_in``: the sign-in that an account's authority comes from, and ends with. ``expires``: when its authority ends
    whatever happens, in seconds since the epoch, where that cannot be renewed."""

    kind: Kind
    tenant: str = DEFAULT
    id: UUID | None = None
    name: str | None = None
    sign_in: UUID | None = None
    expires: float | None = None


#: Whoever reaches a room that asks nobody who they are.
ANYONE = Principal("anyone")
