"""When make builds the page, and what it does where it cannot."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = "services/gateway/page/index.html"
LOCKS = ("requirements.lock", "requirements-dev.lock", "tests/litellm.lock", "web/node.lock")
LIBRARIES = "web/node_modules/.package-lock.json"
#: Leaves what npm would, and a line for each time that it was asked.
NPM = f"""#!/bin/sh
cd "$(dirname "$0")/.."
test ! -e unreachable || exit 1
echo "$1" >> asked
case $1 in
  ci) mkdir -p {Path(LIBRARIES).parent} && touch {LIBRARIES} ;;
  run) mkdir -p {Path(PAGE).parent} && touch {PAGE} && test ! -e failing ;;
esac
"""
ROOM = """#!/bin/sh
echo "m3 $1 runs"
"""
TESTS = """#!/bin/sh
"""


class Project:
    """As much of the project as make looks at for the page, where all else is there already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for file in ("Makefile", "pyproject.toml", "web/package-lock.json", *LOCKS):
            self._place(file)
            shutil.copy(ROOT / file, folder / file)
        for file in ("web/src/main.tsx", ".venv-node/ready", ".venv-litellm/ready", ".venv/run", ".venv/dev"):
            self._place(file).touch()
        for program, text in {"web/npm": NPM, ".venv/bin/m3": ROOM, ".venv/bin/pytest": TESTS}.items():
            self._place(program).write_text(text)
            self._place(program).chmod(0o755)

    def _place(self, file: str) -> Path:
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def make(self, *verb: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["make", *verb], cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)

    def npm_is_asked_for(self, *verb: str) -> list[str]:
        """What npm is asked for when make is asked for this, which must succeed."""
        log = self.folder / "asked"
        log.write_text("")
        done = self.make(*verb)
        assert done.returncode == 0, done.stderr
        for path in self.folder.rglob("*"):  # an hour passes, since two changes at once have one time
            times = path.stat()
            os.utime(path, (times.st_atime - 3600, times.st_mtime - 3600))
        return log.read_text().split()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize("verb", ["page", "run"])
def test_the_page_is_built_once(project: Project, verb: str) -> None:
    assert project.npm_is_asked_for(verb) == ["ci", "run"]
    assert project.npm_is_asked_for(verb) == []


def test_the_libraries_are_fetched_once_where_make_does_several_things_at_once(project: Project) -> None:
    assert project.npm_is_asked_for("-j8", "test") == ["ci", "run"]


def test_what_a_build_left_that_failed_is_no_page(project: Project) -> None:
    (project.folder / "failing").touch()
    assert project.make("page").returncode != 0
    assert not (project.folder / PAGE).exists()
    (project.folder / "failing").unlink()
    assert project.npm_is_asked_for("page") == ["run"]


def test_the_page_is_built_again_when_its_sources_change_and_its_libraries_come_again_when_they_do(
    project: Project,
) -> None:
    assert project.npm_is_asked_for("page") == ["ci", "run"]
    (project.folder / "web/src/main.tsx").touch()
    assert project.npm_is_asked_for("page") == ["run"]
    (project.folder / "web/src/new.ts").touch()
    assert project.npm_is_asked_for("page") == ["run"]
    (project.folder / "web/src/new.ts").unlink()
    assert project.npm_is_asked_for("page") == ["run"]
    (project.folder / "web/package-lock.json").touch()
    assert project.npm_is_asked_for("page") == ["ci", "run"]


def test_a_page_that_is_built_stands_without_its_libraries(project: Project) -> None:
    project.make("page")
    shutil.rmtree(project.folder / "web/node_modules")
    assert project.npm_is_asked_for("page") == []


def test_where_the_page_cannot_be_built_that_is_told_and_the_room_runs(project: Project) -> None:
    (project.folder / "unreachable").touch()
    failed = project.make("page")
    assert failed.returncode != 0
    assert "npm_config_registry" in failed.stderr
    ran = project.make("run")
    assert ran.returncode == 0
    assert "npm_config_registry" in ran.stderr
    assert "m3 up runs" in ran.stdout


def test_make_and_the_readme_want_the_node_that_the_page_wants() -> None:
    wanted = json.loads((ROOT / "web/package.json").read_text())["engines"]["node"]
    found = re.fullmatch(r"\^(\d+)\.(\d+)\.0 \|\| >=(\d+)\.(\d+)\.0", wanted)
    assert found, wanted
    first, least, second, second_least = map(int, found.groups())
    will_do = (
        f"major > {second} || (major === {first} && minor > {least - 1})"
        f" || (major === {second} && minor > {second_least - 1})"
    )
    assert will_do in (ROOT / "Makefile").read_text()
    assert f"{first}.{least}, {second}.{second_least} or newer" in (ROOT / "README.md").read_text()
