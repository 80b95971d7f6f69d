"""The services as real processes."""

import os
import queue
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

#: Seconds in which a process must say that it runs, an embedded database included.
START_DEADLINE = 60.0
STOP_DEADLINE = 20.0


class Process:
    """One ``m3`` command, with its options. What it prints is kept for the message of a failing test."""

    def __init__(self, command: str, environment: dict[str, str]) -> None:
        clean = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.command = command
        self.output: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "m3", *command.split()],
            env=clean | {"PORT": "0"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self._popen.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._popen.stdout,), name=f"output of {command}")
        self._reader.start()

    def started(self) -> str:
        """Wait until it says that it runs; returns the line."""
        while True:
            try:
                line = self._lines.get(timeout=START_DEADLINE)
            except queue.Empty:
                raise AssertionError(f"m3 {self.command} did not start:\n{self.said}") from None
            if line is None:
                raise AssertionError(f"m3 {self.command} ended:\n{self.said}")
            if line.startswith("The "):
                return line

    def address(self) -> str:
        """Wait until it says where it listens."""
        found = re.search(r"http://[^ /\n]+", self.started())
        assert found, self.said
        return found.group()

    def one_time_password(self) -> str:
        """The one that it printed by now."""
        found = re.search(r"one-time password, which is shown once: (\S+)", self.said)
        assert found, self.said
        return found[1]

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def said(self) -> str:
        return "".join(self.output)

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def wait(self, within: float = STOP_DEADLINE) -> int:
        """Wait for its end; returns the exit code."""
        try:
            code = self._popen.wait(within)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"m3 {self.command} did not end:\n{self.said}") from error
        self._reader.join(within)
        return code

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def stop(self) -> int:
        """Ask it to stop; returns the exit code."""
        if self.running:
            self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        if self.running:
            os.killpg(self._popen.pid, signal.SIGKILL)
        self.wait()

    def _read(self, pipe: IO[str]) -> None:
        with pipe:
            for line in pipe:
                self.output.append(line)
                self._lines.put(line)
        self._lines.put(None)


@contextmanager
def processes() -> Iterator[list[Process]]:
    """A list for processes; whatever of it still runs in the end is stopped, or killed if it does not."""
    started: list[Process] = []
    try:
        yield started
    finally:
        running = [process for process in started if process.running]
        for process in running:
            process.signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait()
            except AssertionError:
                process.kill()


def reachable(folder: Path) -> Path:
    """The folder, which the user that an embedded database runs as gets to, where we are root."""
    for each in (folder, *folder.parents):
        if os.geteuid() == 0 == each.stat().st_uid:
            each.chmod(each.stat().st_mode | stat.S_IXGRP | stat.S_IXOTH)
    return folder
