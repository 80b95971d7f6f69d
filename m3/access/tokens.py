"""Access tokens: who somebody is, for some minutes, signed by the room.

One algorithm, HS256, whatever a token says of itself. Every process has the same keys, each with a name that tokens
tell as their ``kid``: the first signs, all are good. So a key is exchanged without a moment in which a good token is
refused: add the new one, roll; move it to the front, roll; take the old one away once its last token has ended.
"""

import base64
import hmac
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt

from m3.errors import NotSignedIn, StartError
from m3.keys import named_keys

#: Who signs the tokens, and whom they are meant for.
ROOM = "m3-room"
#: Seconds by which the clocks of two gateways may differ.
LEEWAY = 5.0

_ALGORITHM = "HS256"
_CLAIMS = ("iss", "aud", "sub", "tenant", "sid", "exp", "iat", "nbf")


@dataclass(frozen=True, slots=True)
class Claims:
    """What an access token says: whose it is, from which sign-in, and until when, in seconds since the epoch."""

    account: UUID
    tenant: str
    sign_in: UUID
    expires: float


class Tokens:
    """Makes access tokens, each good for ``ttl`` seconds, and reads them."""

    def __init__(self, keys: dict[str, bytes], ttl: float) -> None:
        self._keys = keys
        self._signer = next(iter(keys))
        self.ttl = ttl

    def mint(self, account: UUID, tenant: str, sign_in: UUID) -> str:
        now = int(time.time())
        claims = {
            "iss": ROOM,
            "aud": ROOM,
            "sub": str(account),
            "tenant": tenant,
            "sid": str(sign_in),
            "iat": now,
            "nbf": now,
            "exp": now + int(self.ttl),
        }
        return jwt.encode(claims, self._keys[self._signer], _ALGORITHM, headers={"kid": self._signer})

    def read(self, token: str) -> Claims:
        """Raises NotSignedIn where it is not one of ours that is good now."""
        try:
            key = self._keys[jwt.get_unverified_header(token)["kid"]]
            claims = jwt.decode(
                token,
                key,
                algorithms=[_ALGORITHM],
                issuer=ROOM,
                audience=ROOM,
                leeway=LEEWAY,
                options={"require": list(_CLAIMS), "strict_aud": True},
            )
            return Claims(UUID(claims["sub"]), str(claims["tenant"]), UUID(claims["sid"]), float(claims["exp"]))
        except jwt.ExpiredSignatureError:
            raise NotSignedIn("The token has expired.") from None
        except (jwt.PyJWTError, KeyError, ValueError, TypeError, AttributeError, RecursionError):
            raise NotSignedIn("The token is not good.") from None

    def successors(self, credential: str) -> Iterator[str]:
        """The secrets of 43 characters that may follow a credential, the one that does so now first.

        Whoever asks twice with the same credential is given the same, and nobody without our keys can tell it.
        """
        for key in self._keys.values():
            following = hmac.digest(key, b"following " + credential.encode(), "sha256")
            yield base64.urlsafe_b64encode(following).rstrip(b"=").decode()


def issuer_of(token: str) -> str | None:
    """Who a token says that it is from, which nobody has verified."""
    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        return None
    issuer = claims.get("iss")
    return issuer if isinstance(issuer, str) else None


def parse_keys(text: str) -> dict[str, bytes]:
    """The keys in TOKEN_KEYS, in order. Raises StartError, which does not repeat them."""
    return named_keys("TOKEN_KEYS", text)


def keys_in(folder: Path) -> str:
    """The TOKEN_KEYS that a room keeps in its own folder; new ones where there are none. Raises StartError."""
    file = folder / "token_keys"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            new = folder / "token_keys.new"  # so that whoever dies here leaves no half of a file
            new.unlink(missing_ok=True)
            new.touch(0o600)
            new.write_text(f"first:{secrets.token_hex(32)}\n", "ascii")
            new.rename(file)
        text = file.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise StartError(f"The keys in {file} cannot be used: {error}. Set TOKEN_KEYS.") from error
    named_keys(str(file), text)  # whose mistakes are the file's, and no setting's
    return text
