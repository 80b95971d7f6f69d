"""Loud when something cannot be tested."""

import os
from collections.abc import Callable

import pytest

from tests.support.packages import Say
from tests.support.prometheus import NotInstalledError, program


@pytest.fixture(scope="session")
def needed(say: Say) -> Callable[[str], str]:
    """Where a program is; a test that needs one that is not to be had is skipped, or fails in CI."""

    def needed(name: str) -> str:
        try:
            return program(name, say)
        except NotInstalledError as error:
            if os.environ.get("CI"):
                pytest.fail(f"CI must test what is observed: {error}")
            pytest.skip(f"NOT TESTED: {error}")

    return needed
