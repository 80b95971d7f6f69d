"""A real RabbitMQ, from whatever this machine has."""

import gc
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from tests.support.packages import Say, install
from tests.support.ports import free_ports
from tests.support.until import until_blocking

IMAGE = "rabbitmq:4.1.4"
#: Debian's own launcher changes to another user; this one runs as whoever starts it.
DEBIAN_LAUNCHER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
DEBIAN_CTL = Path("/usr/lib/rabbitmq/bin/rabbitmqctl")


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
            yield stack.enter_context(_private_node(launcher, say)).url
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
    return _installed() if install("rabbitmq-server", say) else None


@contextmanager
def private_node(say: Say, *, observed: bool = False) -> Iterator["PrivateNode"]:
    """A node that the tests may kill, freeze and starve. Raises NoBrokerError where no rabbitmq-server is to be had.

    One that is ``observed`` tells Prometheus how it is, on its ``metrics_port``.
    """
    launcher = _installed() or _install(say)
    if launcher is None or not DEBIAN_CTL.exists():
        raise NoBrokerError("no RabbitMQ that may be killed: install the package rabbitmq-server")
    with _private_node(launcher, say, observed=observed) as node:
        yield node


class PrivateNode:
    """A node with its own ports and folder, beside any other on the machine. It comes back on the same data."""

    def __init__(self, launcher: Path, home: Path, *, observed: bool) -> None:
        self.port, self.metrics_port, distribution_port, self._epmd_port = free_ports(4)
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self._launcher = launcher
        self._home = home
        self._node: subprocess.Popen[bytes] | None = None
        (home / "plugins").write_text("[rabbitmq_prometheus]." if observed else "[].")
        metrics = f"prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {self.metrics_port}\n" if observed else ""
        (home / "rabbitmq.conf").write_text(f"disk_free_limit.absolute = 50MB\n{metrics}")
        self._environment = os.environ | {
            "HOME": str(home),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP": str(home / "crash.dump"),
            "RABBITMQ_NODENAME": f"m3test{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(home / "feature_flags"),
        }

    @contextmanager
    def running(self) -> Iterator[None]:
        with (self._home / "output").open("wb") as self._output, ExitStack() as stack:
            # Our own epmd, as a child: one that the node starts would outlive it.
            stack.enter_context(_child(["epmd", "-port", str(self._epmd_port)], self._environment, self._output))
            until_blocking(lambda: _listens(self._epmd_port))
            try:
                self.start()
                yield
            finally:
                self.kill()  # what it holds is thrown away

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        node = self._node = _popen([str(self._launcher)], self._environment, self._output)
        until_blocking(lambda: node.poll() is not None or _speaks_amqp("127.0.0.1", self.port), within=60)
        if node.poll() is not None:
            raise NoBrokerError(f"the private node did not start:\n{(self._home / 'output').read_text()[-2000:]}")

    def kill(self) -> None:
        """End it without a warning."""
        if self._node is not None:
            os.killpg(self._node.pid, signal.SIGKILL)
            self._node.wait()
            self._node = None

    def freeze(self, *, frozen: bool) -> None:
        """Whether it stands still with all its connections open."""
        assert self._node is not None
        os.killpg(self._node.pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def ctl(self, *command: str) -> str:
        """What rabbitmqctl says to a command."""
        done = subprocess.run(
            [str(DEBIAN_CTL), "-q", *command],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout


@contextmanager
def _private_node(launcher: Path, say: Say, *, observed: bool = False) -> Iterator[PrivateNode]:
    say(f"starting a private node with {launcher}")
    with tempfile.TemporaryDirectory(prefix="m3-rabbitmq-", ignore_cleanup_errors=True) as folder:
        node = PrivateNode(launcher, Path(folder), observed=observed)
        with node.running():
            yield node


@contextmanager
def _child(command: list[str], environment: dict[str, str], output: IO[bytes]) -> Iterator[None]:
    child = _popen(command, environment, output)
    try:
        yield
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _popen(command: list[str], environment: dict[str, str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


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
