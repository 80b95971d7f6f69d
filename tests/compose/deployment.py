"""The room as containers, and what operators and accidents do to it."""

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from m3.topology import QUEUES
from tests.compose.engine import CommandError, Engine, run
from tests.compose.images import images
from tests.faults.rig import now
from tests.support.packages import Say
from tests.support.ports import free_ports
from tests.support.until import until

ROOT = Path(__file__).parents[2]
#: What a deployment is made of.
SOURCES = (
    "docker-compose.yml",
    ".dockerignore",
    "Makefile",
    "pyproject.toml",
    "hatch_build.py",
    "requirements.lock",
    "README.md",
    "LICENSE",
    "deploy",
    "m3",
    "services",
    "web",
)
SECOND_COMPOSE = "m3-test/compose-v2"
SERVICES = ("gateway", "pusher", "recorder", "agent")
#: Seconds in which everything must be up, building the image included, and well again after an accident.
UP = 900.0
HEALTHY = 180.0
#: Seconds in which everything must be down: the longest grace, and what the engine itself takes.
DOWN = 120.0


class Deployment:
    """One compose project. Its only door is the edge, behind which are all gateways and pushers."""

    def __init__(
        self, engine: Engine, folder: Path, files: Sequence[str], edge: str, compose: Sequence[str] = ()
    ) -> None:
        self.edge = edge
        self.files = files
        self._engine = engine
        self._folder = folder
        self._compose = [*(compose or engine.compose), "--project-directory", str(folder)]
        self._compose += [word for file in files for word in ("-f", str(folder / file))]

    def with_files(self, *overrides: str) -> "Deployment":
        """The same deployment, seen with more compose files."""
        return Deployment(self._engine, self._folder, (*self.files, *overrides), self.edge)

    def by_second_compose(self) -> "Deployment":
        """The same deployment, in the hands of compose 2, which is in a container where the machine has the first."""
        socket = self._engine.environment.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
        mounts = ["-v", f"{socket}:/var/run/docker.sock", "-v", f"{self._folder}:{self._folder}:ro"]
        compose = ["docker", "run", "--rm", *mounts, "-w", str(self._folder), SECOND_COMPOSE]
        return Deployment(self._engine, self._folder, self.files, self.edge, compose)

    @property
    def gateways(self) -> list[str]:
        return [self.edge]

    @property
    def pushers(self) -> list[str]:
        return [self.edge]

    @property
    def database_address(self) -> dict[str, Any]:
        """The container's own, since the database has no door to the outside."""
        (container,) = self.containers("postgres")
        networks = self._inspect(container)["NetworkSettings"]["Networks"].values()
        password = self.secret("database_password").read_text()
        address = next(network["IPAddress"] for network in networks)
        return {"host": address, "user": "room", "database": "room", "password": password}

    def secret(self, name: str) -> Path:
        return self._folder / "deploy/secrets" / name

    def compose(self, *command: str, within: float = 60.0) -> str:
        """What compose says to a command. Blocks, so that tests ``do`` it. Raises CommandError."""
        return run(*self._compose, *command, environment=self._engine.environment, within=within)

    async def do(self, *command: str, within: float = 60.0) -> str:
        return await asyncio.to_thread(self.compose, *command, within=within)

    async def follow_runbook(
        self, section: str, block: int = 0, *, leaving_out: str = "\n\n", replacing: tuple[str, str] = ("", "")
    ) -> None:
        """Run a block of commands of ``deploy/README.md`` as it stands there, but for a line and a word."""
        text = (self._folder / "deploy/README.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
        commands = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[block].replace(*replacing)
        await self.shell(*(line for line in commands.splitlines() if leaving_out not in line))

    async def shell(self, *lines: str) -> None:
        """Run commands in the project's folder. Raises CommandError where one fails."""
        # `docker compose` is what compose is here, and the files are those of this deployment.
        here = " ".join(map(shlex.quote, self._compose))
        prelude = f'docker() {{ if [ "$1" = compose ]; then shift; {here} "$@"; else command docker "$@"; fi; }}'
        script = "\n".join(["set -eo pipefail", f"cd {self._folder}", prelude, *lines])
        await asyncio.to_thread(run, "bash", "-c", script, environment=self._engine.environment, within=UP)

    @contextmanager
    def told(self, setting: str) -> Iterator[None]:
        """A line more in ``.env`` inside the block."""
        file = self._folder / ".env"
        before = file.read_text()
        file.write_text(f"{before}{setting}\n")
        try:
            yield
        finally:
            file.write_text(before)

    def containers(self, service: str) -> list[str]:
        # The engine is asked, since compose takes a second of a core to say so.
        project, label = self._folder.name, "label=com.docker.compose"
        wanted = (f"{label}.project={project}", f"{label}.service={service}", f"{label}.oneoff=False")
        return self._engine.docker("ps", "-aq", *(word for one in wanted for word in ("--filter", one))).split()

    def exit_codes(self, service: str) -> list[int]:
        """Of its containers that have stopped."""
        states = [self._inspect(container)["State"] for container in self.containers(service)]
        return [state["ExitCode"] for state in states if not state["Running"]]

    def crash(self, service: str) -> None:
        """Kill the main process of each container, as the system would: unlike `docker kill` the engine takes this for
        a failure, and starts it again."""
        for container in self.containers(service):
            os.kill(self._inspect(container)["State"]["Pid"], signal.SIGKILL)

    async def healthy(self, *services: str) -> None:
        """Return when each of the services has containers, and all of them are."""

        def all_are() -> bool:
            found = [self.containers(service) for service in services]
            return all(found) and all(self._is_healthy(container) for containers in found for container in containers)

        try:
            await until(lambda: asyncio.to_thread(all_are), within=HEALTHY, every=0.5)
        except TimeoutError:
            raise AssertionError(f"not healthy:\n{await self.do('ps')}\n{await self.logs()}") from None

    async def logs(self) -> str:
        return (await self.do("logs", "--no-color", "--tail", "40"))[-20_000:]

    async def queues(self) -> dict[str, int]:
        """Messages in each queue that services share, those that somebody holds included."""
        listed = await self.do(
            *("exec", "-T", "rabbitmq", "rabbitmqctl", "-q", "list_queues", "--no-table-headers"), "name", "messages"
        )
        counts = dict(line.split() for line in listed.splitlines() if line.strip())
        return {queue.name: int(counts[queue.name]) for queue in QUEUES}

    def _is_healthy(self, container: str) -> bool:
        """By the look that the engine takes at it every few seconds, which is not waited for."""
        try:
            self._engine.docker("exec", container, *self._inspect(container)["Config"]["Healthcheck"]["Test"][1:])
        except CommandError:
            return False
        return True

    def _inspect(self, container: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self._engine.docker("inspect", container))
        return found[0]


@asynccontextmanager
async def deployed(
    engine: Engine, say: Say, folder: Path, settings: Mapping[str, str], *overrides: str
) -> AsyncIterator[Deployment]:
    """Brought up from a copy of the project with the commands of the README; taken down with all that it kept."""
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "secrets", "node_modules")
            )
        else:
            shutil.copy(source, folder / name)
    port, console, prometheus = free_ports(3)
    files = ("docker-compose.yml", *overrides)
    environment = {
        **settings,
        "PORT": str(port),
        "RABBITMQ_PORT": str(console),
        "PROMETHEUS_PORT": str(prometheus),
        "COMPOSE_PROJECT_NAME": folder.name,
    }
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in environment.items()))
    await asyncio.to_thread(subprocess.run, ["make", "secrets"], cwd=folder, check=True, timeout=60)
    await asyncio.to_thread(images, engine, named_images(*files), say)
    deployment = Deployment(engine, folder, files, f"http://127.0.0.1:{port}")
    try:
        begun = now()
        await deployment.do("build", within=UP)
        await deployment.do("up", "-d", within=UP)
        await deployment.healthy(*SERVICES, "nginx", "rabbitmq", "postgres")
        say(f"all healthy {now() - begun:.0f} s after `build` and `up`")
        yield deployment
    finally:
        await deployment.do("down", "--volumes", "--remove-orphans", within=DOWN)


def named_images(*files: str) -> set[str]:
    """What is not built here, and what that is built on."""
    named = {
        found for file in files for found in re.findall(r"^ +image: (\S+)$", (ROOT / file).read_text(), re.MULTILINE)
    }
    python = re.search(r"^ARG PYTHON=(\S+)$", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE)
    assert python
    return {name for name in named if "$" not in name} | {python[1]}
