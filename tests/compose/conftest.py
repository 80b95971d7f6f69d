"""A Docker engine for the tests of containers."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.compose.engine import Engine, MayNotRunError, NoEngineError, running_engine
from tests.support.packages import Say


@pytest.fixture(scope="session")
def new_engine(say: Say) -> Callable[[], AbstractContextManager[Engine]]:
    """Starts a real Docker engine, or finds one, unless this file of tests has one already."""

    @contextmanager
    def new_engine() -> Iterator[Engine]:
        try:
            with running_engine(say) as engine:
                yield engine
        except NoEngineError as error:
            if os.environ.get("CI") and not isinstance(error, MayNotRunError):
                pytest.fail(f"CI must test on a real Docker engine: {error}")
            pytest.skip(f"NOT TESTED IN CONTAINERS: {error}")

    return new_engine


@pytest.fixture(scope="module")
def engine(new_engine: Callable[[], AbstractContextManager[Engine]]) -> Iterator[Engine]:
    """A real Docker engine, for one file of tests."""
    with new_engine() as engine:
        yield engine
