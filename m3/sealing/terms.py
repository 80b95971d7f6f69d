"""What a message is found by: its words, as numbers of 64 bits.

A number belongs to one thread. In a plain room anybody can work it out. In a sealed one it is made with the thread's
own key: without that it tells which messages of the thread share a word, and how often, but not the word.
"""

import hashlib
import re
import struct
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

#: Most terms of one message; it is not found by words that are new beyond them.
MAX_TERMS = 1000
#: Characters of a word that count.
MAX_WORD = 64

#: Writing without spaces between words: Thai, Lao, Burmese and Khmer, Chinese, Japanese, Korean. Found by each two
#: characters side by side, and by each one.
_DENSE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U000323af"
)
#: Marks that belong to the letter before them, and of the Indic scripts the whole.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0900-\u0963\u0966-\u0dff"
_ASCII = re.compile("[a-z0-9]+")
_RUN = re.compile(f"(?P<dense>[{_DENSE}]+)|(?:(?![{_DENSE}])[^\\W_]|[{_MARKS}])+")

#: Words of all threads whose numbers are kept, since most that are said were said before.
_KEPT_WORDS = 1 << 14

#: Bytes of a number.
_SIZE = 8

#: The number of a word.
Number = Callable[[str], int]


def words(text: str) -> list[str]:
    """What the text is found by, each once: its words without regard to case, and parts of dense writing."""
    found: dict[str, None] = {}
    for word in _words(text, alone=True):
        found[word] = None
        if len(found) == MAX_TERMS:
            break
    return list(found)


def words_asked_for(text: str) -> list[str]:
    """What all has to be in a message that is asked for with the text."""
    return list(dict.fromkeys(_words(text, alone=False)))


def _words(text: str, *, alone: bool) -> Iterable[str]:
    """``alone``: the single characters of dense writing too."""
    if text.isascii():
        return (word[:MAX_WORD] for word in _ASCII.findall(text.lower()))
    return _words_of_all_writing(_folded(text), alone=alone)


def _words_of_all_writing(text: str, *, alone: bool) -> Iterator[str]:
    for run in _RUN.finditer(text):
        word = run[0]
        if run["dense"] is None:
            yield word[:MAX_WORD]
            continue
        if alone or len(word) == 1:
            yield from word
        yield from (word[at : at + 2] for at in range(len(word) - 1))


def _folded(text: str) -> str:
    """As the Unicode standard compares without regard to case and form."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def plain_number(thread_id: str) -> Number:
    of_thread = _number(hashlib.sha256(thread_id.encode()).digest())
    return lambda word: _plain_number(word) ^ of_thread


@lru_cache(_KEPT_WORDS)
def _plain_number(word: str) -> int:
    return _number(hashlib.sha256(word.encode()).digest())


def keyed_number(key: bytes) -> Number:
    """By BLAKE2b with the key, which takes a third of HMAC-SHA256's time."""
    keyed = hashlib.blake2b(key=key, digest_size=_SIZE)

    def number(word: str) -> int:
        one = keyed.copy()  # half of the cost of a new one
        one.update(word.encode())
        return _number(one.digest())

    return number


def _number(digest: bytes) -> int:
    """Its first 64 bits, as PostgreSQL has numbers."""
    return int.from_bytes(digest[:_SIZE], signed=True)


def packed(numbers: Iterable[int]) -> bytes:
    """As they travel."""
    numbers = tuple(numbers)
    return struct.pack(f">{len(numbers)}q", *numbers)


def unpacked(terms: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(terms) // _SIZE}q", terms)
