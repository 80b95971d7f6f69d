"""CPU use of processes, from Linux's ``/proc``."""

import asyncio
import os
import platform
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

#: Whether this system tells what is read here.
MEASURABLE = sys.platform == "linux"

#: Places in ``/proc/<pid>/stat``, counted from the field after the command's name.
_PARENT = 1
#: utime, stime, and the cutime and cstime of children that ended: a process that comes and goes is counted too.
_TIMES = slice(11, 15)


async def shares(roots: Mapping[str, int], window: float) -> dict[str, float]:
    """What each process and its descendants use during the next ``window`` seconds, in % of one core."""
    before, begun = _seconds(roots), time.monotonic()
    await asyncio.sleep(window)
    after, ended = _seconds(roots), time.monotonic()
    return {name: 100 * (after[name] - before[name]) / (ended - begun) for name in roots}


def descendant(root: int, command: str) -> int | None:
    """A process of that name below ``root``, if there is one."""
    for pid in _tree(root, _stats()):
        if Path(f"/proc/{pid}/comm").read_text().strip() == command:
            return pid
    return None


def processor() -> str:
    if MEASURABLE:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor() or platform.machine()


def _seconds(roots: Mapping[str, int]) -> dict[str, float]:
    """CPU time used so far."""
    stats = _stats()
    ticks = {name: sum(sum(map(int, stats[pid][_TIMES])) for pid in _tree(root, stats)) for name, root in roots.items()}
    return {name: count / os.sysconf("SC_CLK_TCK") for name, count in ticks.items()}


def _tree(root: int, stats: Mapping[int, list[str]]) -> list[int]:
    tree = [root]
    for above in tree:  # it grows while it is walked
        tree += [pid for pid, fields in stats.items() if int(fields[_PARENT]) == above]
    return tree


def _stats() -> dict[int, list[str]]:
    """Of every process, the fields after its name, which may itself hold blanks and brackets."""
    stats = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            stats[int(file.parent.name)] = file.read_text().rpartition(")")[2].split()
    return stats
