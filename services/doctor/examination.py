"""All checks side by side, and the report of them."""

import asyncio
import json
import textwrap
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass

import typer

from m3.settings import Settings
from services.doctor.access import access
from services.doctor.broker import broker
from services.doctor.content import content
from services.doctor.database import database
from services.doctor.edge import address_of, edge
from services.doctor.findings import Finding, Mark
from services.doctor.model import Questions, model

#: Seconds that the checks of one server may take, besides those that a socket is held for. Their steps have less.
DEADLINE = 25.0
#: Characters for the mark, for the check's name, and so before what was found.
_MARK, _NAME = 9, 23
MARGIN = _MARK + _NAME

_COLOURS: Mapping[Mark, str] = {"ok": "green", "warning": "yellow", "wrong": "red", "skipped": "bright_black"}


@dataclass(frozen=True, slots=True)
class Report:
    findings: Sequence[Finding]

    @property
    def well(self) -> bool:
        return not any(finding.mark == "wrong" for finding in self.findings)

    def text(self, width: int) -> str:
        """A line for each check, in colours, folded at so many characters."""
        return "\n".join(line for finding in self.findings for line in _lines(finding, width))

    def json(self) -> str:
        return json.dumps({"well": self.well, "findings": [asdict(finding) for finding in self.findings]}, indent=2)


async def examine(
    settings: Settings,
    *,
    questions: Callable[[], AbstractAsyncContextManager[Questions]],
    edge_url: str | None,
    hold: float,
) -> Report:
    """Look at everything that the settings name, or ``edge_url`` in the place of theirs. ``hold``: seconds for which a
    socket is left silent."""
    database_url = settings.database_url.get_secret_value() if settings.database_url else None
    tenants = settings.tenant_names if settings.auth_required else ()
    checks = {
        "broker": broker(settings.broker_url.get_secret_value()),
        "database": database(database_url, tenants),
        "content": content(settings),
        "model": model(settings.llm_base_url, settings.llm_model, questions),
        "access": access(settings),
        "edge": edge(edge_url or address_of(settings), hold, required=settings.auth_required),
    }
    async with asyncio.TaskGroup() as group:
        looks = [group.create_task(_in_time(name, checks[name], DEADLINE + hold), name=name) for name in checks]
    return Report([finding for look in looks for finding in look.result()])


async def _in_time(name: str, check: Awaitable[list[Finding]], deadline: float) -> list[Finding]:
    """Whatever happens to one check, the others are told."""
    try:
        async with asyncio.timeout(deadline):
            return await check
    except TimeoutError:
        return [Finding(name, "wrong", f"nothing was found out within {deadline:g} s", "Look at it by other means.")]
    except Exception as error:  # noqa: BLE001  # a mistake in one check, whose text may have a secret
        return [
            Finding(name, "wrong", f"the check itself failed ({type(error).__name__})", "Look at it by other means.")
        ]


def _lines(finding: Finding, width: int) -> list[str]:
    mark = typer.style(f"{finding.mark:<{_MARK}}", fg=_COLOURS[finding.mark])
    first, *more = _folded(finding.found, width)
    return [
        f"{mark}{finding.check:<{_NAME}}{first}",
        *(" " * MARGIN + line for line in [*more, *_folded(finding.advice, width)]),
    ]


def _folded(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width - MARGIN, MARGIN), break_long_words=False, break_on_hyphens=False)
