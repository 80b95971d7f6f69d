"""What people and programs are called."""

import re
import unicodedata
from collections.abc import Iterable

from m3.errors import Unsuitable

_NAME = re.compile(r"\w[\w.@+-]{0,63}")
#: What is in a name beside letters, and belongs to every script.
_NEUTRAL = frozenset("0123456789_.@+-")
#: Scripts that are written together, by what the Unicode names of their characters begin with.
_TOGETHER = (
    frozenset(("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA")),
    frozenset(("CJK", "IDEOGRAPHIC", "BOPOMOFO")),
    frozenset(("CJK", "IDEOGRAPHIC", "HANGUL")),
)
#: Letters that are not seen, that lengthen others, and those of phonetics that look like common Latin ones.
_MISLEADING = re.compile("[\u115f\u1160\u0640\u01c0-\u01c3\u0250-\u02ff\u1d00-\u1dbf]")


def known_as(name: str) -> str:
    """The one form in which a name is kept, in whatever case and width it is typed."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def is_proper(kept: str) -> bool:
    """Whether somebody can be called so: by letters that are seen, of one script. So nobody passes for another by one
    letter; a whole name may yet look like one of another script."""
    return _NAME.fullmatch(kept) is not None and _MISLEADING.search(kept) is None and _is_of_one_script(kept)


def _is_of_one_script(kept: str) -> bool:
    scripts = {re.split("[ -]", unicodedata.name(letter, "?"))[0] for letter in set(kept) - _NEUTRAL}
    return len(scripts) <= 1 or any(scripts <= together for together in _TOGETHER)


def proper_name(name: str) -> str:
    """The name as it is kept. Raises Unsuitable where nobody can be called so."""
    kept = known_as(name)
    if not is_proper(kept):
        raise Unsuitable(
            "A name is up to 64 letters of one script, digits and any of _.@+- and begins with a letter or digit."
        )
    return kept


def name_like(candidates: Iterable[str], *, otherwise: str) -> str:
    """The first of them that somebody can be called, once what no name has is left out; room is left for an ending.
    ``otherwise``: what they are called where none is."""
    for candidate in candidates:
        kept = re.sub(r"^\W+", "", re.sub(r"[^\w.@+-]+", "-", known_as(candidate)))[:48]
        if is_proper(kept):
            return kept
    return otherwise
