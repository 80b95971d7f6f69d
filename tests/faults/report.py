"""The page that a run writes."""

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench import cpu
from tests.faults.load import TRIES, Plan
from tests.faults.soak import Soak
from tests.faults.trial import Result

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"


@dataclass
class Page:
    plan: Plan
    #: What the time of each fault was multiplied by.
    pace: float
    results: list[Result] = field(default_factory=list)
    soak: Soak | None = None
    minutes: float = 0.0
    begun: datetime = field(default_factory=lambda: datetime.now(UTC))

    def tables(self) -> str:
        parts = []
        if self.results:
            parts.append(_table(self.results))
        if self.soak:
            parts.append(self.soak.table())
        return "\n\n".join(parts)

    def write(self) -> None:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(self._text())

    def _text(self) -> str:
        plan = self.plan
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        return f"""\
# Faults

Written by `make faults` on {self.begun:%Y-%m-%d at %H:%M} UTC, seed {plan.seed}, in {self.minutes:.0f} minutes.
{cpu.processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}; Python {platform.python_version()}. The
cores are shared by the services, both servers, the model and the load itself.

`make faults ONLY=broker-away` runs one of them, `make faults ONLY=soak` the soak; `SEED=2 make faults` draws another
load. A short selection is part of `make test`.

## What is done

Two gateways, two pushers, two recorders and two agents run as processes over a RabbitMQ and a PostgreSQL of their own;
a process that ends is started again at once. About {plan.rate:g} messages a second are said in {plan.threads} threads,
before, during and after each fault: by HTTP, most with an `Idempotency-Key` that is used again after a 503, a broken
connection or a timeout, some without; and by {plan.speakers} sockets with `client_id`. {plan.listeners} sockets listen:
fast ones, slow ones, and ones that leave every few seconds; each comes back, at the other pusher, with `after`. Half of
them ask for `events=all`. The model takes up to 150 ms and fails for one message in 25. The last rows are about `m3 up`.

{"" if self.pace == 1 else f"In this run every time of a fault was multiplied by {self.pace:g}."}

{_table(self.results)}

**Acknowledged**: answered with 200, 202 or 502, or `recorded`. **Unknown**: given up after {TRIES} tries without an
answer that says; such a message may be recorded, once at most. **Lost**: acknowledged and not in the table. **Doubled**:
in the table more than once. **Recovery**: seconds from the end of the fault (the last kill; the server's return; the
thaw) until a message posted at every gateway is answered with its reply and pushed to a socket at every pusher.

**Violations** are broken promises, all of them checked once the load is over and the room has come to rest:

- what was acknowledged is in the table once, with the number and the text that were acknowledged; what was refused is
  not there;
- the numbers of a thread, of messages and of failures, are 1 to its head, each once;
- every message has a fate; an answered one has one reply, the right one, and a failed one none;
- every socket heard, over all its connections, each number after its start once and in order up to the head, and
  nothing of another thread;
- the work queues are empty, and the dead letters are what nobody understands and nothing else;
- while a server is away: a POST is answered with 503 and `Retry-After` within 5 s, `/readyz` names what is missing, an
  open socket stays open, and the history is there as long as the database is;
- no service ends by itself, and one that is told to stop ends with 0.

`tests/faults/checker.py` has them as code, and `tests/faults/test_checker.py` breaks each.

## Soak

{self.soak.text() if self.soak else "Not run."}
"""


def _table(results: Sequence[Result]) -> str:
    head = "| fault | | acknowledged | unknown | lost | doubled | violations | recovery | |\n|---|---|--:|--:|--:|--:|--:|--:|---|"
    return "\n".join([head, *map(row, results)])


def row(result: Result) -> str:
    recovery = "never" if result.recovery is None else f"{result.recovery:.1f} s"
    return (
        f"| {result.fault.name} | {result.fault.sentence} | {result.acknowledged} | {result.unknown} "
        f"| {result.count('lost')} | {result.count('doubled')} | {len(result.violations)} | {recovery} "
        f"| {'; '.join(result.notes)} |"
    )


def say(what: str) -> None:
    print(f"[faults] {what}", file=sys.stderr, flush=True)
