"""The command line, where it goes wrong before a service begins."""

import subprocess
import sys

#: Some tracebacks show local variables.
SURPRISE = """
from m3 import cli

def read_settings():
    password = "hu" + "sh"
    raise RuntimeError("nobody thought of this")

cli.read_settings = read_settings
cli.app(["gateway"])
"""


def test_what_goes_wrong_before_the_settings_are_known_shows_no_secret() -> None:
    done = subprocess.run([sys.executable, "-c", SURPRISE], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "nobody thought of this" in done.stderr
    assert "hush" not in done.stdout + done.stderr
