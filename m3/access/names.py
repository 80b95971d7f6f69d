"""What people and programs are called."""

import re
import unicodedata
from collections.abc import Iterable

from m3.errors import Unsuitable

_NAME = re.compile(r"\w[\w.@+-]{0,63}")


def known_as(name: str) -> str:
    """The one form in which a name is kept: no two look the same that differ in case, or in how they are typed."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def is_proper(kept: str) -> bool:
    """Whether somebody can be called so."""
    return _NAME.fullmatch(kept) is not None


def proper_name(name: str) -> str:
    """The name as it is kept. Raises Unsuitable where nobody can be called so."""
    kept = known_as(name)
    if not is_proper(kept):
        raise Unsuitable("A name is up to 64 letters, digits and any of _.@+- and begins with a letter or digit.")
    return kept


def name_like(candidates: Iterable[str]) -> str:
    """The first of them that somebody can be called, once what no name has is left out; room is left for an ending."""
    for candidate in candidates:
        if kept := re.sub(r"^\W+", "", re.sub(r"[^\w.@+-]+", "-", known_as(candidate)))[:48]:
            return kept
    return "somebody"
