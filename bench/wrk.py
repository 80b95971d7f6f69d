"""wrk, a compiled client of HTTP that costs far less than what answers it."""

import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.rooms import say

SCRIPT = Path(__file__).with_name("post.lua")
#: Seconds that one request may take, and wrk its end.
TIMEOUT = 10


@dataclass
class Answers:
    """What wrk was answered, in requests; times in seconds."""

    answers: int
    #: Of the answers, those with a status of 400 and more.
    refusals: int
    #: Connections that failed, and requests without an answer.
    broken: int
    median: float
    p99: float


class Load:
    """A running wrk."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.pid = process.pid

    async def answers(self) -> Answers:
        """Wait for its end."""
        assert self._process.stdout
        async with asyncio.timeout(120):
            said = (await self._process.stdout.read()).decode()
        try:
            return Answers(**json.loads(said.splitlines()[-1]))
        except (IndexError, ValueError) as error:
            raise RuntimeError(f"wrk said: {said}") from error


@asynccontextmanager
async def load(  # noqa: PLR0913  # they are the load
    address: str, *, senders: int, batch: int, source: str, threads: int, text: str, seconds: float
) -> AsyncIterator[Load]:
    """Post batches of so many messages for so many seconds, each sender the next when it was answered."""
    process = await asyncio.create_subprocess_exec(
        *("wrk", "--threads", "1", "--connections", str(senders), "--duration", f"{seconds:g}s"),
        *("--timeout", f"{TIMEOUT}s", "--script", str(SCRIPT), address, "--", str(threads), str(batch), source, text),
        stdout=PIPE,
    )
    try:
        yield Load(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def at_hand() -> bool:
    """Whether there is a wrk; on Debian and Ubuntu as root it is installed first."""
    if not shutil.which("wrk") and sys.platform == "linux" and os.geteuid() == 0 and shutil.which("apt-get"):
        if platform.freedesktop_os_release().get("ID") not in {"debian", "ubuntu"}:
            return False
        say("installing Debian's package wrk")
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-qq", "--no-install-recommends", "wrk"]):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)
    return shutil.which("wrk") is not None
