"""The dialogue table, in PostgreSQL."""

from m3.store.postgres import END, Record, Store, ThreadLocks, migrate, open_store

__all__ = ["END", "Record", "Store", "ThreadLocks", "migrate", "open_store"]
