"""What was found lately, so that not every request asks the database who somebody is."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Memory(Generic[Key, Value]):
    """Remembers what a look found for some seconds, counted from its beginning, and of ``most`` keys, those asked for
    last. What a look raises is not remembered. Several who ask for the same at once share one look."""

    def __init__(self, seconds: float, clock: Callable[[], float], most: int = 10_000) -> None:
        self._seconds = seconds
        self._clock = clock
        self._most = most
        self._found: OrderedDict[Key, tuple[float, Value]] = OrderedDict()  # with the end of each
        self._looks: dict[Key, asyncio.Future[Value]] = {}

    def recall(self, key: Key) -> Value | None:
        found = self._found.get(key)
        if found is None:
            return None
        if found[0] <= self._clock():
            del self._found[key]
            return None
        self._found.move_to_end(key)
        return found[1]

    async def look(self, key: Key, look: Callable[[], Awaitable[Value]]) -> Value:
        """What the look finds, which is remembered; past what is remembered now."""
        while (other := self._looks.get(key)) is not None:
            await asyncio.wait([other])
            if not other.cancelled():  # or whoever looked went away, and one of us looks in their place
                return other.result()
        ours = self._looks[key] = asyncio.get_running_loop().create_future()
        until = self._clock() + self._seconds
        try:
            value = await look()
        except asyncio.CancelledError:
            ours.cancel()
            raise
        except BaseException as error:
            ours.set_exception(error)
            ours.exception()  # nobody else may have asked
            raise
        else:
            ours.set_result(value)
            if self._looks.get(key) is ours:  # and was not told to forget it in the meantime
                self._remember(key, until, value)
            return value
        finally:
            if self._looks.get(key) is ours:
                del self._looks[key]

    def forget(self, of: Callable[[Key, Value], bool]) -> None:
        """Forget what is remembered of these. A look that has begun is not remembered."""
        self._looks.clear()
        for key in [key for key, (_, value) in self._found.items() if of(key, value)]:
            del self._found[key]

    def remember(self, key: Key, value: Value) -> None:
        """What was found without a look."""
        self._remember(key, self._clock() + self._seconds, value)

    def _remember(self, key: Key, until: float, value: Value) -> None:
        self._found[key] = until, value
        self._found.move_to_end(key)
        if len(self._found) > self._most:
            self._found.popitem(last=False)
