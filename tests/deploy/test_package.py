"""What is in a package of the project, and that none is made without the page."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = "services/gateway/page"
BUILT = (f"{PAGE}/index.html", f"{PAGE}/assets/index-0a1b2c3d.js", f"{PAGE}/licenses.md")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with what a build of the page would leave."""
    project = tmp_path / "project"
    left_out = shutil.ignore_patterns("__pycache__", "node_modules", "page")
    for folder in ("m3", "services", "web"):
        shutil.copytree(ROOT / folder, project / folder, ignore=left_out)
    for file in (".gitignore", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, project)
    for file in (*BUILT, "web/node_modules/preact/index.js"):
        (project / file).parent.mkdir(parents=True, exist_ok=True)
        (project / file).touch()
    return project


def build(project: Path, target: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(project / "dist"), "-t", target]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60, check=False)


def test_a_wheel_has_the_page_and_not_what_it_is_built_from(project: Path) -> None:
    built = build(project, "wheel")
    assert built.returncode == 0, built.stderr
    [wheel] = (project / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        files = set(opened.namelist())
    assert {*BUILT, "m3/events.py"} <= files
    assert {file.partition("/")[0] for file in files if ".dist-info/" not in file} == {"m3", "services"}


def test_a_source_package_has_the_page_and_what_it_is_built_from(project: Path) -> None:
    """So a wheel is made of it without node, or the page anew with it."""
    built = build(project, "sdist")
    assert built.returncode == 0, built.stderr
    [source] = (project / "dist").glob("*.tar.gz")
    with tarfile.open(source) as opened:
        files = {name.partition("/")[2] for name in opened.getnames()}
    assert {*BUILT, "web/package-lock.json", "web/npm"} <= files
    assert not [file for file in files if "node_modules" in file]


@pytest.mark.parametrize("target", ["wheel", "sdist"])
def test_no_package_is_made_without_the_page(project: Path, target: str) -> None:
    shutil.rmtree(project / PAGE)
    refused = build(project, target)
    assert refused.returncode == 1
    assert "`make page` builds it" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list((project / "dist").glob("*.*"))


def test_the_project_is_linked_into_an_environment_without_the_page(project: Path) -> None:
    shutil.rmtree(project / PAGE)
    linked = build(project, "wheel:editable")
    assert linked.returncode == 0, linked.stderr


@pytest.mark.parametrize("source", ["web/src/main.tsx", "web/package-lock.json"])
def test_no_package_is_made_with_a_page_of_other_sources(project: Path, source: str) -> None:
    built = (project / PAGE / "index.html").stat()
    os.utime(project / source, (built.st_atime + 3600, built.st_mtime + 3600))
    refused = build(project, "wheel")
    assert refused.returncode == 1
    assert f"older than {source}" in refused.stderr


def test_a_wheel_is_made_of_a_source_package(project: Path, tmp_path: Path) -> None:
    assert build(project, "sdist").returncode == 0
    [source] = (project / "dist").glob("*.tar.gz")
    with tarfile.open(source) as opened:
        opened.extractall(tmp_path / "source", filter="data")
    [unpacked] = (tmp_path / "source").iterdir()
    built = build(unpacked, "wheel")
    assert built.returncode == 0, built.stderr


def test_the_page_says_whose_work_is_in_it() -> None:
    built = ROOT / PAGE / "licenses.md"
    if not built.parent.exists():
        pytest.skip("NOT TESTED: the page was not built; `make page` does it, and `make test` too")
    told = built.read_text()
    for name, version in json.loads((ROOT / "web/package.json").read_text())["dependencies"].items():
        assert f"## {name} - {version} (" in told
