"""A cluster for tests, or a loud reason why there is none."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults.rig import Room, cluster
from tests.support.broker import NoBrokerError


@asynccontextmanager
async def cluster_for_tests(**settings: str) -> AsyncIterator[Room]:
    why = "" if sys.platform == "linux" else "processes are frozen and found by Linux's /proc"
    try:
        if not why:
            async with cluster(proxied=True, SWEEP_INTERVAL="2", **settings) as room:
                yield room
            return
    except NoBrokerError as error:
        why = str(error)
    if os.environ.get("CI"):
        pytest.fail(f"CI must test with faults: {why}")
    pytest.skip(f"NOT TESTED WITH FAULTS: {why}")
