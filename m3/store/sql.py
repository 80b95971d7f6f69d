"""The SQL files of this folder, by name."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

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
