"""What the model has said so far of a reply, such as PostgreSQL can keep it."""

import re
from collections.abc import Callable

#: Longest reply that is kept, in characters.
MAX_REPLY = 64 * 1024

_SURROGATE = re.compile("[\ud800-\udfff]")
#: In the place of half a surrogate pair whose other half never comes: it has no UTF-8.
_UNKNOWN = "?"


class Spoken:
    """``on_growth`` is called whenever something was said, or became void.

    ``attempts`` counts how often the model was asked for it, and ``restarts`` how often something that was said became
    void, so that whoever told it must begin anew.
    """

    def __init__(self, on_growth: Callable[[], None]) -> None:
        self._on_growth = on_growth
        self.attempts = 1
        self.restarts = 0
        self._begin()

    def _begin(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self._taken = 0
        self._half = ""

    def restart(self) -> None:
        """The model is asked anew: what it said is void."""
        said = bool(self._pieces)
        self.attempts += 1
        self._begin()
        if said:
            self.restarts += 1
            self._on_growth()

    def add(self, piece: str) -> None:
        clean = self._clean(piece)
        if not self._length:
            clean = clean.lstrip()
        clean = clean[: MAX_REPLY - self._length]
        if clean:
            self._pieces.append(clean)
            self._length += len(clean)
            self._on_growth()

    def _clean(self, piece: str) -> str:
        """Without what PostgreSQL keeps in no text. Half a pair at the end waits for the next piece."""
        if "\x00" in piece:
            piece = piece.replace("\x00", "")
        if not self._half and not _SURROGATE.search(piece):
            return piece
        piece = self._half + piece
        self._half = piece[-1:] if "\ud800" <= piece[-1:] <= "\udbff" else ""
        whole = piece.removesuffix(self._half)
        joined = whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return _SURROGATE.sub(_UNKNOWN, joined)

    @property
    def text(self) -> str:
        """The reply so far, without blanks around it."""
        return "".join([*self._pieces, _UNKNOWN if self._half else ""])[:MAX_REPLY].strip()

    @property
    def full(self) -> bool:
        """Whether no more is kept, whatever the model goes on to say."""
        return self._length >= MAX_REPLY

    def take_new(self) -> str:
        """What was said since this was last asked. It may end in blanks, which more text may follow."""
        new = "".join(self._pieces[self._taken :])
        self._taken = len(self._pieces)
        return new
