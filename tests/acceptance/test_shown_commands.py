"""The README's commands about who may do what, as they stand there."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support.processes import Process

ROOT = Path(__file__).parents[2]
SHOWN = "http://127.0.0.1:8888"


def test_what_is_shown_of_signing_in_and_letting_others_in_works_as_it_stands(
    start: Callable[..., Process],
) -> None:
    section = (ROOT / "README.md").read_text("utf-8").partition("\n## Who may do what\n")[2].partition("\n## ")[0]
    starting, *blocks = re.findall(r"^```bash\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert starting == "AUTH=required make run\n"
    room = start("up", AUTH="required")
    address = room.address()
    script = "".join(blocks).replace(SHOWN, address).replace("<one-time password>", room.one_time_password())
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    for told in ('"name":"admin"', '"response"', '"seq":', '"ticket":"m3t_'):
        assert told in done.stdout
