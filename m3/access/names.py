"""What people and programs are called."""

import re
import unicodedata
from collections.abc import Iterable

from m3.errors import Unsuitable

_NAME = re.compile(r"\w[\w.@+-]{0,63}")
#: What is in a name beside letters, and belongs to every script.
_NEUTRAL = frozenset("0123456789_.@+-")
#: Scripts that are written together, by what the Unicode names of their characters begin with: those of the "highly
#: restrictive" level of Unicode's UTS 39, section 5.2.
_TOGETHER = (
    frozenset(("LATIN", "CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA")),
    frozenset(("LATIN", "CJK", "IDEOGRAPHIC", "BOPOMOFO")),
    frozenset(("LATIN", "CJK", "IDEOGRAPHIC", "HANGUL")),
)
#: Letters that are not seen, that lengthen others, and those that look like common Latin ones: of phonetics, parts of
#: Hangul syllables, single strokes of Chinese characters.
_MISLEADING = re.compile(
    "[\u0640\u01c0-\u01c3\u0250-\u02ff\u1d00-\u1dbf\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff"
    "\u3007\u4e28\u4e36\u4e3f-\u4e41\u4e85]"
)


UNSUITABLE_NAME = (
    "A name is up to 64 letters of one script, or Latin and East Asian ones, digits and any of _.@+- "
    "and begins with a letter or digit."
)


def known_as(name: str) -> str:
    """The one form in which a name is kept, in whatever case and width it is typed."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def is_proper(kept: str) -> bool:
    """Whether somebody can be called so: by letters that are seen, of scripts that are written together. So nobody
    passes for another by one letter; a whole name may yet look like one of another script."""
    return _NAME.fullmatch(kept) is not None and _MISLEADING.search(kept) is None and _is_written_so(kept)


def _is_written_so(kept: str) -> bool:
    scripts = {re.split("[ -]", unicodedata.name(letter, "?"))[0] for letter in set(kept) - _NEUTRAL}
    return len(scripts) <= 1 or any(scripts <= together for together in _TOGETHER)


def proper_name(name: str) -> str:
    """The name as it is kept. Raises Unsuitable where nobody can be called so."""
    kept = known_as(name)
    if not is_proper(kept):
        raise Unsuitable(UNSUITABLE_NAME)
    return kept


def name_like(candidates: Iterable[str], *, otherwise: str) -> str:
    """The first of them that somebody can be called, once what no name has is left out; room is left for an ending.
    ``otherwise``: what they are called where none is."""
    for candidate in candidates:
        kept = re.sub(r"^\W+", "", re.sub(r"[^\w.@+-]+", "-", known_as(candidate)))[:48]
        if is_proper(kept):
            return kept
    return otherwise
