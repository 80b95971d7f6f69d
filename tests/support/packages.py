"""Debian's packages, for programs that the tests need and the machine has not."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable

#: Told what happens, for the person who waits.
Say = Callable[[str], None]


def install(package: str, say: Say) -> bool:
    """Install it, on Debian and Ubuntu as root; anywhere else nothing happens, and the answer is False."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    if platform.freedesktop_os_release().get("ID") not in {"debian", "ubuntu"}:
        return False
    say(f"installing Debian's package {package} for the tests")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-qq", "--no-install-recommends", package],
    ):
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, timeout=600)
    return True
