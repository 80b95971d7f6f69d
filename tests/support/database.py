"""A real PostgreSQL that the tests may stop, freeze and start again: the embedded one's programs, on a port."""

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal

from m3.store.embedded import embedded_postgres
from tests.support.ports import free_ports

#: Seconds that a start or a stop may take.
DEADLINE = 60


class Database:
    """A server on the data folder of one that runs just now and has to end first. It listens on the loopback address
    alone."""

    def __init__(self, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._folder = folder
        self._pg_ctl = Path(f"/proc/{self.postmaster}/exe").resolve().with_name("pg_ctl")
        self._owner = folder.stat().st_uid

    def start(self) -> None:
        """Start it on what was there, and wait until it takes connections."""
        options = f"-h 127.0.0.1 -p {self.port} -k {self._folder}"
        self._control("start", "-o", options, "-l", str(self._folder / "log"))

    def stop(self, mode: Literal["fast", "immediate"]) -> None:
        """Whether it rolls back and writes all down first, or leaves it to the next start."""
        self._control("stop", "-m", mode)

    @property
    def running(self) -> bool:
        return (self._folder / "postmaster.pid").exists()

    def freeze(self, *, frozen: bool) -> None:
        """Whether all its processes stand still with all their connections open."""
        for pid in self._processes():
            with suppress(ProcessLookupError):  # a session that has just ended
                os.kill(pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    @property
    def postmaster(self) -> int:
        return int((self._folder / "postmaster.pid").read_text().split()[0])

    def _processes(self) -> list[int]:
        """The first process, and its children: one a session."""
        first = self.postmaster
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, children)]

    def _control(self, *command: str) -> None:
        done = subprocess.run(
            [self._pg_ctl, "-D", self._folder, "-w", "-t", str(DEADLINE), *command],
            user=self._owner,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # no pipe: the server would keep it open
            stderr=subprocess.DEVNULL,
            timeout=DEADLINE + 5,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"pg_ctl {' '.join(command)}: {(self._folder / 'log').read_text()[-2000:]}")


@asynccontextmanager
async def private_database() -> AsyncIterator[Database]:
    """A server with an empty database. Its folder is made by the embedded server, whose programs it uses too."""
    with tempfile.TemporaryDirectory(prefix="m3-postgres-", ignore_cleanup_errors=True) as folder:
        async with embedded_postgres(Path(folder)):
            database = Database(Path(folder) / "postgres")
        await asyncio.to_thread(database.start)
        try:
            yield database
        finally:
            if database.running:
                database.freeze(frozen=False)
                await asyncio.to_thread(database.stop, "immediate")
