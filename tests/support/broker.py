"""A real RabbitMQ, from whatever this machine has."""

import gc
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from tests.support.until import until_blocking

IMAGE = "rabbitmq:4.1.4"
#: Debian's own launcher changes to another user; this one runs as whoever starts it.
DEBIAN_LAUNCHER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


Say = Callable[[str], None]


class NoBrokerError(Exception):
    """There is no way to a RabbitMQ on this machine."""


@contextmanager
def running_broker(say: Say) -> Iterator[str]:
    """Yields the URL of a RabbitMQ that the tests may fill and empty; ``say`` is told where it comes from.

    In this order: ``TEST_BROKER_URL``; a container; a private node of an installed rabbitmq-server; on Debian and
    Ubuntu as root that package, installed first.
    """
    with ExitStack() as stack:
        if (url := os.environ.get("TEST_BROKER_URL")) or (url := _container(stack, say)):
            yield url
        elif launcher := _installed() or _install(say):
            yield stack.enter_context(_private_node(launcher, say))
        else:
            raise NoBrokerError(
                "no RabbitMQ: set TEST_BROKER_URL, or start Docker, or install the package rabbitmq-server"
            )


def _container(stack: ExitStack, say: Say) -> str | None:
    from docker.errors import DockerException
    from testcontainers.core.container import DockerContainer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # its client forgets to close what it failed to connect
        try:
            container = stack.enter_context(DockerContainer(IMAGE).with_exposed_ports(5672))
            host, port = container.get_container_host_ip(), int(container.get_exposed_port(5672))
        except DockerException as error:  # no daemon, or no registry to get the image from
            say(f"no container ({type(error).__name__})")
            host = ""
        gc.collect()
    if not host:
        return None
    until_blocking(lambda: _speaks_amqp(host, port), within=90)
    return f"amqp://guest:guest@{host}:{port}/"


def _installed() -> Path | None:
    if DEBIAN_LAUNCHER.exists():
        return DEBIAN_LAUNCHER
    found = shutil.which("rabbitmq-server")
    return Path(found) if found else None


def _install(say: Say) -> Path | None:
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("apt-get"):
        return None
    if platform.freedesktop_os_release().get("ID") not in {"debian", "ubuntu"}:
        return None
    say("installing Debian's package rabbitmq-server for the tests")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-qq", "--no-install-recommends", "rabbitmq-server"],
    ):
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, timeout=600)
    return _installed()


@contextmanager
def _private_node(launcher: Path, say: Say) -> Iterator[str]:
    """A node with its own ports and folder, beside any other on the machine."""
    say(f"starting a private node with {launcher}")
    port, distribution_port, epmd_port = _free_ports(3)
    with tempfile.TemporaryDirectory(prefix="m3-rabbitmq-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        (home / "plugins").write_text("[].")
        (home / "rabbitmq.conf").write_text("disk_free_limit.absolute = 50MB\n")
        environment = os.environ | {
            "HOME": folder,
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP": str(home / "crash.dump"),
            "RABBITMQ_NODENAME": f"m3test{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(home / "feature_flags"),
        }
        with (home / "output").open("wb") as output, ExitStack() as stack:
            # Our own epmd, as a child: one that the node starts would outlive it.
            stack.enter_context(_child(["epmd", "-port", str(epmd_port)], environment, output))
            until_blocking(lambda: _listens(epmd_port))
            node = stack.enter_context(_child([str(launcher)], environment, output))
            until_blocking(lambda: node.poll() is not None or _speaks_amqp("127.0.0.1", port), within=60)
            if node.poll() is not None:
                raise NoBrokerError(f"the private node did not start:\n{(home / 'output').read_text()[-2000:]}")
            yield f"amqp://guest:guest@127.0.0.1:{port}/"


@contextmanager
def _child(command: list[str], environment: dict[str, str], output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        os.killpg(child.pid, signal.SIGKILL)  # what it holds is thrown away
        child.wait()


def _speaks_amqp(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return bool(connection.recv(1))
    except OSError:
        return False


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
