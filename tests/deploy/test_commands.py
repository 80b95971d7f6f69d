"""The commands that the documents show are commands that there are."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from m3 import cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "deploy/README.md", "deploy/k8s/README.md")
#: What stands before a command of m3 in each kind of deployment.
BEFORE = r"(?:docker compose run --rm (?:--no-deps )?(?:gateway|recorder) |\bm3 )"


def shown() -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        text = (ROOT / document).read_text("utf-8")
        for found in re.finditer(rf"{BEFORE}((?:user|key|thread|content|migrate)\b[^`#\n|)>]*)", text):
            yield document, found[1].strip()


@pytest.mark.parametrize(("document", "words"), list(shown()))
def test_a_command_that_is_shown_can_be_given(document: str, words: str) -> None:
    command: Any = typer.main.get_group(cli.app)
    left = shlex.split(words)
    while commands := getattr(command, "commands", None):
        command = commands[left.pop(0)]
    command.make_context(words, left)
