"""AES-256-GCM, and keys made of keys. The only importer of cryptography.

What is sealed carries the version of its form first, then a random nonce of 96 bits, the ciphertext and its tag. It is
bound to what it is about: sealed bytes that were changed, or put in the place of others, do not open.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from m3.errors import Unreadable

#: Bytes of every key.
KEY_SIZE = 32

_VERSION = b"\x01"
_NONCE_SIZE = 12
_TAG_SIZE = 16
_LEAST = len(_VERSION) + _NONCE_SIZE + _TAG_SIZE


def new_key() -> bytes:
    return AESGCM.generate_key(8 * KEY_SIZE)


def derived(key: bytes, purpose: bytes) -> bytes:
    """Another key for another purpose, which tells nothing of the first."""
    return HKDF(SHA256(), KEY_SIZE, salt=None, info=b"m3 " + purpose).derive(key)


class Cipher:
    """Seals and opens with one key. ``about``: what the bytes belong to, and open only with."""

    def __init__(self, key: bytes) -> None:
        self._gcm = AESGCM(key)

    def seal(self, plain: bytes, about: bytes) -> bytes:
        nonce = os.urandom(_NONCE_SIZE)
        return _VERSION + nonce + self._gcm.encrypt(nonce, plain, _VERSION + about)

    def open(self, sealed: bytes, about: bytes) -> bytes:
        """Raises Unreadable."""
        if len(sealed) < _LEAST or not sealed.startswith(_VERSION):
            raise Unreadable("It is not of a form that this version knows.")
        nonce, rest = sealed[1 : 1 + _NONCE_SIZE], sealed[1 + _NONCE_SIZE :]
        try:
            return self._gcm.decrypt(nonce, rest, _VERSION + about)
        except InvalidTag:
            raise Unreadable("It was sealed with another key or for another place, or was changed since.") from None
