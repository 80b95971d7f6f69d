"""Tasks that have a name and an owner."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def background(
    name: str,
    work: Coroutine[Any, Any, None],
    *,
    stop: Callable[[], object] | None = None,
    grace: float | None = None,
) -> AsyncIterator[None]:
    """Run ``work`` beside the block; its failure ends the block with that error, and so does its end.

    Leaving the block cancels it, or calls ``stop`` where given, and waits for its end; after ``grace`` seconds it is
    cancelled nevertheless. An error of the block cancels it at once in any case.
    """
    stopping = False
    error: BaseException | None = None

    async def endless() -> None:
        try:
            await work
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise RuntimeError(f"The task {name!r} was cancelled by nobody.") from cancelled
        if not stopping:
            raise RuntimeError(f"The task {name!r} ended by itself.")

    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(endless(), name=name)
            try:
                yield
            finally:
                stopping = True
            (stop or task.cancel)()
            if grace is not None:
                asyncio.get_running_loop().call_later(grace, task.cancel)  # which an ended task does not mind
    except BaseExceptionGroup as several:
        if len(several.exceptions) > 1:
            raise
        error = several.exceptions[0]
    finally:
        work.close()  # which a block that ends at once never began
    if error is not None:
        raise error  # out here, since inside the handler it would lose its own cause
