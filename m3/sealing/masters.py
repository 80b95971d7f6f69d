"""The room's master keys. They seal nothing but threads' own keys, so a new one soon takes the place of an old."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from m3.errors import Unreadable
from m3.sealing.cipher import Cipher, derived, new_key

#: In the place of a first key: nothing new is sealed, and what was is still opened.
OFF = "off"

_KEY = re.compile(r"(?P<name>[A-Za-z0-9_.-]{1,64}):(?P<key>[0-9a-fA-F]{64})")
_FORM = "must be name:64 hex digits, with commas between them"


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A thread's key as the table has it, sealed with the master key of that name."""

    master: str
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class Masters:
    """``first``: the name of the one that new keys are wrapped with; None where nothing is sealed."""

    first: str | None = None
    _ciphers: Mapping[str, Cipher] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, told: str) -> "Masters":
        """From a setting: ``name:64 hex digits``, with commas; the first may be ``off``. Raises ValueError, which does
        not repeat it."""
        parts = [part.strip() for part in told.split(",")]
        seals = parts[0] != OFF
        ciphers: dict[str, Cipher] = {}
        for part in parts if seals else parts[1:]:
            found = _KEY.fullmatch(part)
            if found is None:
                raise ValueError(_FORM)
            if found["name"] in ciphers:
                raise ValueError(f"has two keys of the name {found['name']}")
            ciphers[found["name"]] = Cipher(derived(bytes.fromhex(found["key"]), b"master"))
        return cls(next(iter(ciphers)) if seals else None, ciphers)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._ciphers)

    def new_key(self, thread_id: str) -> WrappedKey:
        """A new key for the thread, wrapped with the first master key."""
        return self._wrap(thread_id, new_key())

    def unwrap(self, thread_id: str, key: WrappedKey) -> bytes:
        """Raises Unreadable."""
        cipher = self._ciphers.get(key.master)
        if cipher is None:
            raise Unreadable(f"There is no master key {key.master} here.")
        return cipher.open(key.wrapped, _about(thread_id, key.master))

    def rewrap(self, thread_id: str, key: WrappedKey) -> WrappedKey:
        """The same key, wrapped with the first master key. Raises Unreadable."""
        return self._wrap(thread_id, self.unwrap(thread_id, key))

    def _wrap(self, thread_id: str, key: bytes) -> WrappedKey:
        assert self.first is not None
        return WrappedKey(self.first, self._ciphers[self.first].seal(key, _about(thread_id, self.first)))


def _about(thread_id: str, master: str) -> bytes:
    return f"m3 thread key\n{master}\n{thread_id}".encode()  # neither has a line break
