"""Tasks that have a name and an owner."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def background(
    name: str, work: Coroutine[Any, Any, None], *, stop: Callable[[], object] | None = None
) -> AsyncIterator[None]:
    """Run ``work`` beside the block; its failure ends the block with that error.

    Leaving the block cancels it, or calls ``stop`` where given, and waits for its end. An error of the block
    cancels it in any case.
    """
    error: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work, name=name)
            try:
                yield
            finally:
                (stop or task.cancel)()
    except BaseExceptionGroup as several:
        if len(several.exceptions) > 1:
            raise
        error = several.exceptions[0]
    if error is not None:
        raise error  # out here, since inside the handler it would lose its own cause
