"""How principals stand to threads, in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from m3.access.principals import Kind
from m3.access.rules import Action, Role, Standing, Visibility, about_a_thread, finds, may, standing_of
from m3.errors import Denied, Forbidden, NotSignedIn, UnknownThread
from m3.store.postgres import Ask


@dataclass(frozen=True, slots=True)
class Stance:
    """How a principal stands to a thread: what ``kind`` it is, None if it is nobody any more; the thread's
    ``visibility``, None where there is no such thread; and its ``role`` there."""

    kind: Kind | None
    visibility: Visibility | None
    role: Role | None

    def refusal(self, action: Action) -> Denied | None:
        """Why they may not do this; None where they may."""
        if self.kind is None:
            return NotSignedIn("Your sign-in or your key is not good any more.")
        if not about_a_thread(action):
            return None if may(self.kind, action) else Forbidden("You may not do this.")
        if not self.finds:
            return UnknownThread()
        return None if self.allows(action) else Forbidden("You may not do this in this thread.")

    @property
    def finds(self) -> bool:
        """Whether the thread is there for them."""
        return self.kind is not None and self.visibility is not None and finds(self.kind, self._standing)

    def allows(self, action: Action) -> bool:
        """Whether this may be done where the thread is there, and they still are somebody."""
        if self.kind is None or self.visibility is None:
            return False
        return may(self.kind, action, self._standing)

    @property
    def _standing(self) -> Standing | None:
        if self.kind is None or self.visibility is None:
            return None
        return standing_of(self.kind, self.role, self.visibility)


async def stances(ask: Ask, asked: Sequence[tuple[UUID | None, UUID | None, str]]) -> list[Stance]:
    """How each principal, with its sign-in where it has one, stands to the thread of that key; in a transaction where
    ``ask`` is one's."""
    principals, sign_ins, keys = zip(*asked, strict=True) if asked else ((), (), ())
    return [Stance(**row) for row in await ask("stances", principals, sign_ins, keys)]
