"""An engine of the tests' own leaves nothing behind but its images."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.compose.engine import ADDRESS, BRIDGE, PID_FILE, RUN, Engine
from tests.compose.images import images

pytestmark = pytest.mark.timeout(900)  # the first time, an image is made


def test_what_was_started_in_it_ends_with_it_and_images_stay(
    new_engine: Callable[[], AbstractContextManager[Engine]], say: Callable[[str], None]
) -> None:
    with new_engine() as engine:
        if engine.environment.get("DOCKER_HOST") != ADDRESS:
            pytest.skip("this engine is somebody's, who keeps what is in it")
        images(engine, ["m3-test/python"], say)
        engine.docker("network", "create", "left")
        engine.docker("run", "--detach", "--network=left", "--volume=left:/left", "m3-test/python", "sleep", "1000")
    assert not PID_FILE.exists()
    assert not Path("/sys/class/net", BRIDGE).exists()
    assert f"{RUN}/" not in Path("/proc/mounts").read_text("utf-8")
    with new_engine() as engine:
        assert engine.docker("images", "--quiet", "m3-test/python")
        assert not engine.docker("ps", "--all", "--quiet")
        assert not engine.docker("volume", "ls", "--quiet")
        assert not engine.docker("network", "ls", "--quiet", "--filter=type=custom")
