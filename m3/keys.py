"""Keys that a setting holds: ``name:64 hex digits``, with commas between them."""

import re

from m3.errors import StartError

_KEY = re.compile("([A-Za-z0-9_-]{1,32}):([0-9A-Fa-f]{64})")


def named_keys(setting: str, text: str) -> dict[str, bytes]:
    """The keys of 32 bytes, by their names, in order. Raises StartError, which does not repeat them."""
    keys: dict[str, bytes] = {}
    for number, part in enumerate(map(str.strip, text.split(",")), 1):
        found = _KEY.fullmatch(part)
        if found is None:
            raise StartError(
                f"{setting}: the key at place {number} is not a name, a colon and 64 hex digits; "
                "`openssl rand -hex 32` makes such digits."
            )
        if found[1] in keys:
            raise StartError(f"{setting}: there are two keys of the name {found[1]}.")
        keys[found[1]] = bytes.fromhex(found[2])
    return keys
