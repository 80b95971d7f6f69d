"""The dialogue table, in PostgreSQL."""

from m3.store.postgres import (
    END,
    DatabaseState,
    Mailbox,
    Mark,
    Record,
    Store,
    ThreadLocks,
    Waiting,
    is_pooled,
    look,
    migrate,
    open_store,
    speaking_for,
)

__all__ = [
    "END",
    "DatabaseState",
    "Mailbox",
    "Mark",
    "Record",
    "Store",
    "ThreadLocks",
    "Waiting",
    "is_pooled",
    "look",
    "migrate",
    "open_store",
    "speaking_for",
]
