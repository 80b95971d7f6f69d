"""The README's table of settings is the settings."""

import re
from pathlib import Path

from pydantic import SecretStr

from m3.settings import Settings

README = Path(__file__).parents[2] / "README.md"


def test_every_setting_is_in_the_readme_and_no_other() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|", README.read_text("utf-8"), re.MULTILINE)
    assert rows == [name.upper() for name in Settings.model_fields]


def test_the_readmes_defaults_are_the_defaults() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `([^`]*)` \|", README.read_text("utf-8"), re.MULTILINE))
    for name, field in Settings.model_fields.items():
        if told := rows.get(name.upper()):
            default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
            assert told == (str(default).lower() if isinstance(default, bool) else str(default))
