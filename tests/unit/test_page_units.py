"""The page's own unit tests, so that one command runs all."""

import os
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "web"


def test_the_pages_own_tests_pass() -> None:
    if not (WEB / "node_modules").exists():
        missing = "no web/node_modules; `make page` makes it"
        if os.environ.get("CI"):
            pytest.fail(f"CI must test the page: {missing}")
        pytest.skip(f"THE PAGE IS NOT TESTED: {missing}")
    told = os.environ | {"NO_COLOR": "1"}
    done = subprocess.run([WEB / "npm", "test"], env=told, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
