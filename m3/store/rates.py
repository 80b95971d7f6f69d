"""How often something was done, counted by all processes together."""

from datetime import timedelta

from m3.store.postgres import Row, Store, speaking_for


class Rates:
    """Counters, each in a window of time that begins with the first, of the whole room: no tenant sees any.
    Every method raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def count(self, key: str, amount: int, window: float) -> int:
        """Count that much in a window of so many seconds; returns how much that makes."""
        rows = await self._ask("count_rate", key, amount, timedelta(seconds=window))
        return int(rows[0]["amount"])

    async def uncount(self, key: str) -> None:
        """One less, where its window is not over."""
        await self._ask("uncount_rate", key)

    async def look(self, key: str) -> tuple[int, float]:
        """How much was counted in the window that runs, and the seconds until it is over."""
        rows = await self._ask("rate", key)
        return (rows[0]["amount"], rows[0]["remaining"]) if rows else (0, 0.0)

    async def forget(self, key: str) -> None:
        await self._ask("forget_rate", key)

    async def sweep(self) -> None:
        """Remove what was counted in windows that are over."""
        await self._ask("sweep_rates")

    async def _ask(self, name: str, *arguments: object) -> list[Row]:
        with speaking_for(None):
            return await self._store.ask(name, *arguments)
