"""What processes use of processor and memory, from Linux's ``/proc``."""

import asyncio
import os
import platform
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: Whether this system tells what is read here.
MEASURABLE = sys.platform == "linux"

#: What ``/proc/<pid>/stat`` says of each process, from its name on.
_Stats = Mapping[int, list[str]]
_NAME = 0
_PARENT = 2
#: utime and stime, and the same of children that ended, so that a process which comes and goes is counted too.
_TIMES = slice(12, 16)


async def shares(roots: Mapping[str, int], window: float) -> dict[str, float]:
    """What each process and its descendants use during the next ``window`` seconds, in % of one core."""
    before, begun = seconds(roots), time.monotonic()
    await asyncio.sleep(window)
    after, ended = seconds(roots), time.monotonic()
    return {name: 100 * (after[name] - before[name]) / (ended - begun) for name in roots}


def seconds(roots: Mapping[str, int]) -> dict[str, float]:
    """CPU time that each process and its descendants used so far."""
    stats = _stats()

    def ticks(root: int) -> int:
        return sum(int(time) for pid in _tree(root, stats) for time in stats[pid][_TIMES])

    return {name: ticks(root) / os.sysconf("SC_CLK_TCK") for name, root in roots.items()}


@dataclass
class Memory:
    """What a process and its descendants have of the memory, in bytes."""

    #: Each page counted for every process that has it.
    resident: int
    #: Each page shared out among the processes that have it. None where this system does not let it be read.
    proportional: int | None


def memory(roots: Mapping[str, int]) -> dict[str, Memory]:
    stats = _stats()
    return {name: _memory(_tree(root, stats)) for name, root in roots.items()}


def machine() -> tuple[float, float]:
    """Seconds of all cores since the machine's start: those in which they worked, and all."""
    user, nice, system, idle, io_wait, *others = map(int, Path("/proc/stat").read_text().split()[1:9])
    working = user + nice + system + sum(others)
    ticks = os.sysconf("SC_CLK_TCK")
    return working / ticks, (working + idle + io_wait) / ticks


def share(before: tuple[float, float], after: tuple[float, float]) -> float:
    """The part of all cores' time in which they worked, between two looks at the machine."""
    working, whole = (now - then for now, then in zip(after, before, strict=True))
    return working / whole


def descendant(root: int, name: str) -> int | None:
    """A process of that name below ``root``, if there is one."""
    stats = _stats()
    return next((pid for pid in _tree(root, stats) if stats[pid][_NAME] == name), None)


def processor() -> str:
    if MEASURABLE:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor() or platform.machine()


def _memory(pids: list[int]) -> Memory:
    resident, proportional = 0, 0
    readable = True
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            resident += os.sysconf("SC_PAGE_SIZE") * int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                proportional += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            except PermissionError:  # another user's
                readable = False
    return Memory(resident, proportional if readable else None)


def _tree(root: int, stats: _Stats) -> list[int]:
    tree = [root]
    for above in tree:  # it grows while it is walked
        tree += [pid for pid, fields in stats.items() if int(fields[_PARENT]) == above]
    return tree


def _stats() -> _Stats:
    stats = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            name, _, fields = file.read_text().partition("(")[2].rpartition(")")  # the name may hold brackets itself
            stats[int(file.parent.name)] = [name, *fields.split()]
    return stats
