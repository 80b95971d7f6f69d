"""The room's master keys. They seal nothing but threads' own keys, so a new one soon takes the place of an old."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from m3.errors import Unreadable
from m3.keys import named_keys
from m3.sealing.cipher import Cipher, derived, new_key
from m3.settings import Settings

#: In the place of a first key: nothing new is sealed, and what was is still opened.
OFF = "off"


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
    def of(cls, settings: Settings) -> "Masters":
        """Those in CONTENT_KEYS, of which the first may be ``off``. Raises StartError."""
        if settings.content_keys is None:
            return cls()
        first, comma, others = settings.content_keys.get_secret_value().partition(",")
        off = bool(comma) and first.strip() == OFF
        keys = named_keys("CONTENT_KEYS", others if off else f"{first}{comma}{others}")
        ciphers = {name: Cipher(derived(key, b"master")) for name, key in keys.items()}
        return cls(None if off else next(iter(keys)), ciphers)

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
