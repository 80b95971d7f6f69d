"""The dialogue table, in PostgreSQL."""

from m3.store.postgres import END, Mailbox, Mark, Record, Store, ThreadLocks, Waiting, migrate, open_store

__all__ = ["END", "Mailbox", "Mark", "Record", "Store", "ThreadLocks", "Waiting", "migrate", "open_store"]
