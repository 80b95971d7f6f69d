"""Both generations of compose understand the files."""

from pathlib import Path

import pytest

from tests.compose.deployment import SECOND_COMPOSE
from tests.compose.engine import Engine, run
from tests.compose.images import images
from tests.support.packages import Say

pytestmark = pytest.mark.timeout(900)  # where the image is made first

ROOT = Path(__file__).parents[2]
OVERRIDES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "deploy").glob("compose.*.yml"))

every_override = pytest.mark.parametrize("override", [None, *OVERRIDES])


def config(root: str, override: str | None) -> list[str]:
    files = ["docker-compose.yml", *([override] if override else [])]
    named = [word for file in files for word in ("-f", f"{root}/{file}")]
    place = ["--project-directory", root, "--env-file", f"{root}/.env.example"]
    return [*place, "--profile", "demo", *named, "config", "--quiet"]


@every_override
def test_the_compose_of_this_machine_understands_it(engine: Engine, override: str | None) -> None:
    assert run(*engine.compose, *config(str(ROOT), override), environment=engine.environment, within=60) == ""


@every_override
def test_the_second_compose_understands_it(engine: Engine, say: Say, override: str | None) -> None:
    images(engine, [SECOND_COMPOSE], say)
    assert engine.docker("run", "--rm", "-v", f"{ROOT}:/room:ro", SECOND_COMPOSE, *config("/room", override)) == ""
