"""The dialogue table, in PostgreSQL."""

from m3.store.postgres import Record, Store, ThreadLocks, migrate, open_store

__all__ = ["Record", "Store", "ThreadLocks", "migrate", "open_store"]
