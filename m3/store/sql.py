"""The SQL files of this folder, by name, and how they take many rows at once."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

_HERE = files("m3.store")


@cache
def query(name: str) -> str:
    """The statement in ``queries/<name>.sql``."""
    return (_HERE / "queries" / f"{name}.sql").read_text("utf-8")


@dataclass(frozen=True, slots=True)
class Migration:
    version: str
    statements: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.statements.encode()).hexdigest()


def migrations() -> Iterator[Migration]:
    """``migrations/NNNN_*.sql``, in order."""
    for file in sorted((_HERE / "migrations").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            yield Migration(file.name.partition("_")[0], file.read_text("utf-8"))


def columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    """The rows turned on their side, as unnest takes them."""
    return [list(column) for column in zip(*rows, strict=True)]


def array(values: Iterable[object]) -> str:
    """As PostgreSQL writes it, since SQL has no ragged arrays."""
    return "{" + ",".join(map(str, values)) + "}"
