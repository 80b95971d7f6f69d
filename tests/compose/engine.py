"""A real Docker engine for the tests, from whatever this machine has."""

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.packages import Say
from tests.support.until import until_blocking

#: What a private engine has while it runs. One machine has one at a time.
RUN = Path("/run/m3-room-docker")
PID_FILE = RUN / "pid"
ADDRESS = f"unix://{RUN}/socket"
#: A bridge of its own, to which it gives a network that nobody else has.
BRIDGE = "m3-room0"
#: Seconds that a private engine has to start, and another time to end.
START = 60.0
END = 30.0
#: Seconds to wait for the tests of somebody else, who has the private engine.
TURN = 600.0
#: Hours after which pieces of images are thrown away that no longer have a name.
KEPT = 72
#: The bits of the capabilities without which root may not run an engine.
CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21


class NoEngineError(Exception):
    """There is no Docker engine to be had here."""


class MayNotRunError(NoEngineError):
    """No engine is there, and this machine or user may not run one whatever is installed."""


@dataclass
class Engine:
    """A Docker engine, and how to speak to it."""

    #: What docker and docker-compose need to be started with.
    environment: dict[str, str] = field(repr=False)
    #: The command that compose is here, of the first version or the second.
    compose: tuple[str, ...]
    #: Why nothing can be pulled, as soon as that is known.
    no_registry: str = ""
    #: The images that were built since the engine is used, and the names that they have for as long.
    built: set[str] = field(default_factory=set)
    stood_in: set[str] = field(default_factory=set)

    def docker(self, *command: str, within: float = 60) -> str:
        """What docker says to a command. Raises CommandError when it fails, or takes longer than so many seconds."""
        return run("docker", *command, environment=self.environment, within=within)


class CommandError(Exception):
    """A command failed; its last words say how."""


def run(*command: str, environment: dict[str, str] | None = None, within: float) -> str:
    """What a command says on its standard output, without the last line's end."""
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=within,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{' '.join(command)}: not done within {within:g} s") from error
    except OSError as error:
        raise CommandError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise CommandError(f"{' '.join(command)}: {(done.stdout + done.stderr).strip()[-2000:]}")
    return done.stdout.rstrip("\n")


@contextmanager
def running_engine(say: Say) -> Iterator[Engine]:
    """Yields an engine for the tests; ``say`` is told where it comes from. Raises NoEngineError where there is none.

    In this order: the one that docker finds by itself (``DOCKER_HOST``, its context, its usual socket); a private one as
    root, for which Debian's packages are installed first where they are missing. A private engine begins and ends
    without containers, networks and volumes, and keeps its images for the next time.
    """
    with ExitStack() as stack:
        environment = dict(os.environ)
        if not _answers(environment):
            _install(say)
            if not _answers(environment):  # a package may have started one
                environment["DOCKER_HOST"] = stack.enter_context(_private_engine(say))
        if not _works("docker", "buildx", "version"):
            environment |= {"DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0"}
        engine = Engine(environment, _compose())
        try:
            yield engine
        finally:
            if engine.stood_in:  # nobody is to take them for the real ones
                engine.docker("rmi", "--no-prune", *engine.stood_in)


def _answers(environment: dict[str, str]) -> bool:
    return _works("docker", "version", "--format", "{{.Server.Version}}", environment=environment)


def _works(*command: str, environment: dict[str, str] | None = None) -> bool:
    try:
        run(*command, environment=environment, within=20)
    except CommandError:
        return False
    return True


def _compose() -> tuple[str, ...]:
    for command in (("docker", "compose"), ("docker-compose",)):
        if _works(*command, "version"):
            return command
    raise NoEngineError("docker is here without compose: install docker-compose")


def _install(say: Say) -> None:
    """See to it that all is here that a private engine takes."""
    if not _may_run():
        raise MayNotRunError("no Docker engine: start Docker, or run the tests as a root who may run one")
    wanted = {
        "dockerd": "docker.io",
        "docker-compose": "docker-compose",
        "debootstrap": "debootstrap",
        "ip": "iproute2",
    }
    packages = [package for program, package in wanted.items() if not shutil.which(program)]
    if not packages and shutil.which("docker"):
        return
    if not shutil.which("apt-get") or platform.freedesktop_os_release().get("ID") not in {"debian", "ubuntu"}:
        raise NoEngineError(f"no Docker engine: start Docker, or install {' '.join(packages or ['docker-cli'])}")
    say(f"installing Debian's packages {' '.join(packages)} for the tests")
    _apt_get("update")
    _apt_get("install", "--no-install-recommends", "debian-archive-keyring", *packages)
    if not shutil.which("docker"):  # since Debian 13 it is a package of its own
        _apt_get("install", "--no-install-recommends", "docker-cli")


def _apt_get(*command: str) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        run("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *command, environment=environment, within=600)
    except CommandError as error:
        raise NoEngineError(str(error)) from error


def _may_run() -> bool:
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    may = re.search(r"^CapEff:\s*(\w+)$", Path("/proc/self/status").read_text("ascii"), re.MULTILINE)
    return may is not None and all(int(may[1], 16) >> bit & 1 for bit in (CAP_NET_ADMIN, CAP_SYS_ADMIN))


@contextmanager
def _private_engine(say: Say) -> Iterator[str]:
    """Yields the address of an engine beside any other on the machine."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "m3-room" / "docker"
    cache.mkdir(parents=True, exist_ok=True)
    RUN.mkdir(mode=0o700, exist_ok=True)
    environment = os.environ | {"DOCKER_HOST": ADDRESS}
    with ExitStack() as stack:
        stack.enter_context(_turn(say))
        say(f"starting a private engine, whose images are kept in {cache}")
        try:
            stack.enter_context(_bridge())
            _start(stack, environment, cache)
            _empty(environment)  # of what one that was killed has left
        except (CommandError, TimeoutError) as error:
            raise NoEngineError(f"no private engine: {error!r}") from error
        stack.callback(_empty, environment)
        yield ADDRESS


def _start(stack: ExitStack, environment: dict[str, str], data: Path) -> None:
    until_blocking(_predecessor_is_gone, within=END)
    log = stack.enter_context((RUN / "log").open("wb"))
    daemon = subprocess.Popen(
        [
            *("setpriv", "--pdeathsig", "TERM"),  # it ends with us, even where we are killed
            *("dockerd", "--host", ADDRESS, "--bridge", BRIDGE, "--data-root", str(data)),
            *("--exec-root", str(RUN / "exec"), "--pidfile", str(PID_FILE)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    stack.callback(_end, daemon)
    with suppress(TimeoutError):
        until_blocking(lambda: daemon.poll() is not None or _answers(environment), within=START)
    if not _answers(environment):
        raise NoEngineError(f"the private engine did not start:\n{(RUN / 'log').read_text('utf-8')[-2000:]}")


def _predecessor_is_gone() -> bool:
    """Whether one whose tests were killed has ended, and no other process is taken for it."""
    try:
        gone = Path("/proc", PID_FILE.read_text("ascii").strip(), "comm").read_text("utf-8").strip() != "dockerd"
    except OSError:
        gone = True
    if gone:
        PID_FILE.unlink(missing_ok=True)
    return gone


def _empty(environment: dict[str, str]) -> None:
    for listed, remove in (
        (("ps", "--all"), ("rm", "--force", "--volumes")),
        (("network", "ls", "--filter", "type=custom"), ("network", "rm")),
        (("volume", "ls"), ("volume", "rm", "--force")),
    ):
        if found := run("docker", *listed, "--quiet", environment=environment, within=60).split():
            run("docker", *remove, *found, environment=environment, within=120)
    run("docker", "image", "prune", "--force", "--filter", f"until={KEPT}h", environment=environment, within=60)


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(END)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait(END)
    for mount in reversed(Path("/proc/mounts").read_text("utf-8").splitlines()):
        if (where := mount.split()[1]).startswith(f"{RUN}/"):
            run("umount", "--lazy", where, within=10)


@contextmanager
def _turn(say: Say) -> Iterator[None]:
    """Hold the only place for a private engine."""
    with (RUN / "lock").open("w") as lock:

        def ours() -> bool:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        if not ours():
            say("waiting for other tests that use the private engine")
            try:
                until_blocking(ours, within=TURN)
            except TimeoutError as error:
                raise NoEngineError(f"other tests have the private engine, for {TURN:g} s and more") from error
        yield


@contextmanager
def _bridge() -> Iterator[None]:
    if not Path("/sys/class/net", BRIDGE).exists():
        run("ip", "link", "add", "name", BRIDGE, "type", "bridge", within=10)
    run("ip", "link", "set", BRIDGE, "up", within=10)
    forwarding = _rules("filter", " FORWARD ACCEPT")
    try:
        yield
    finally:
        run("ip", "link", "delete", BRIDGE, within=10)
        for table in ("filter", "nat"):
            for rule in _rules(table, BRIDGE):
                run("iptables", "--wait", "-t", table, *rule.replace("-A", "-D", 1).split(), within=10)
        if forwarding:  # which an engine turns off for all that is not its own
            run("iptables", "--wait", "-P", "FORWARD", "ACCEPT", within=10)


def _rules(table: str, word: str) -> list[str]:
    return [rule for rule in run("iptables", "--wait", "-t", table, "-S", within=10).splitlines() if word in rule]
