"""What `make secrets` makes, and never makes anew."""

import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from m3.access.tokens import parse_keys
from m3.settings import read_settings

ROOT = Path(__file__).parents[2]
COMPOSE_FILES = (ROOT / "docker-compose.yml", *(ROOT / "deploy").glob("compose.*.yml"))
#: What an operator brings along.
BROUGHT = {"tls_certificate", "tls_key"}


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The folder of a deployment whose secrets were just made."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    make(tmp_path)
    return tmp_path / "deploy/secrets"


def make(folder: Path) -> None:
    subprocess.run(["make", "--silent", "secrets"], cwd=folder, check=True, timeout=60)


def test_every_secret_that_compose_names_is_there_and_only_the_folder_lets_nobody_in(secrets: Path) -> None:
    named = {name for file in COMPOSE_FILES for name in yaml.safe_load(file.read_text()).get("secrets", ())}
    assert {file.name for file in secrets.iterdir()} == named - BROUGHT
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in secrets.iterdir()} == {0o644}, "containers are other users"


def test_services_take_them_and_nothing_is_sealed_until_a_key_is_there(secrets: Path) -> None:
    settings = read_settings(secrets)
    assert settings.token_keys is not None
    assert parse_keys(settings.token_keys.get_secret_value()).keys() == {"k1"}
    assert settings.content_keys is None


def test_none_is_made_anew_and_no_two_are_the_same(secrets: Path, tmp_path: Path) -> None:
    (secrets / "content_keys").write_text(f"k1:{'0' * 64}")
    before = {file.name: file.read_text() for file in secrets.iterdir()}
    made = [content for content in before.values() if re.fullmatch(r"(k1:)?[0-9a-f]{48,64}", content)]
    assert len(set(made)) == len(made) == 6
    make(tmp_path)
    assert {file.name: file.read_text() for file in secrets.iterdir()} == before
