"""Credentials that say nothing by themselves: producer keys, invites, refresh tokens and tickets. The room keeps their
hashes alone. These need no salt and no slow hash, since what is hashed is random and long."""

import re
import secrets
import string
from hashlib import sha256
from uuid import UUID

#: By which people know a key or an invite.
PREFIX_PATTERN = "[a-z0-9]{8}"

_SECRET = "[A-Za-z0-9_-]{43}"  # noqa: S105 - what one looks like: 256 bits
_KEY = re.compile(f"m3k_({PREFIX_PATTERN})_{_SECRET}")
_INVITE = re.compile(f"m3i_({PREFIX_PATTERN})_{_SECRET}")
_REFRESH_TOKEN = re.compile(f"m3r_([0-9a-f]{{32}})_{_SECRET}")
_TICKET = re.compile(f"m3t_{_SECRET}")
_PREFIXES = string.ascii_lowercase + string.digits


def digest(credential: str) -> bytes:
    """What the room keeps of it, and knows it by."""
    return sha256(credential.encode()).digest()


def new_key() -> tuple[str, str]:
    """A producer key's prefix, by which people know it, and the key."""
    return _new("m3k")


def prefix_of(key: str) -> str | None:
    """The prefix of what may be a producer key; None of anything else."""
    found = _KEY.fullmatch(key)
    return found and found[1]


def new_invite() -> tuple[str, str]:
    """Likewise of an invite to a thread."""
    return _new("m3i")


def prefix_of_invite(text: str) -> str | None:
    """The prefix of what may be an invite; None of anything else."""
    found = _INVITE.fullmatch(text)
    return found and found[1]


def refresh_token(sign_in: UUID, secret: str | None = None) -> str:
    """A token that renews the sign-in, by a secret of 43 characters, or a new one."""
    return f"m3r_{sign_in.hex}_{secret or secrets.token_urlsafe(32)}"


def sign_in_of(token: str) -> UUID | None:
    """The sign-in that what may be a refresh token renews; None of anything else."""
    found = _REFRESH_TOKEN.fullmatch(token)
    return UUID(found[1]) if found else None


def new_ticket() -> str:
    return f"m3t_{secrets.token_urlsafe(32)}"


def is_ticket(text: str) -> bool:
    return _TICKET.fullmatch(text) is not None


def _new(kind: str) -> tuple[str, str]:
    prefix = "".join(secrets.choice(_PREFIXES) for _ in range(8))
    return prefix, f"{kind}_{prefix}_{secrets.token_urlsafe(32)}"
