"""What the tests of containers stand on: an engine, and images that do what the compose files expect of them."""

import re
from collections.abc import Callable
from itertools import count
from pathlib import Path

import aio_pika
import asyncpg
import httpx2
import pytest

from tests.compose.engine import Engine
from tests.compose.images import images
from tests.support.until import until

ROOT = Path(__file__).parents[2]
PYTHON, RABBITMQ, POSTGRES, NGINX = "python:3.13-slim-trixie", "rabbitmq:4.1.4-management", "postgres:18", "nginx:1.28"
COMPOSE = "m3-test/compose-v2"

pytestmark = pytest.mark.timeout(900)  # the first time, every image is made

_numbers = count(1)


@pytest.fixture(scope="module", autouse=True)
def _images(engine: Engine, say: Callable[[str], None]) -> None:
    for _ in range(2):  # as several who share an engine
        images(engine, [PYTHON, RABBITMQ, POSTGRES, NGINX, COMPOSE], say)


def start(engine: Engine, *what: str) -> str:
    """The name of a new container."""
    name = f"m3-test-{next(_numbers)}"
    engine.docker("run", "--detach", "--name", name, *what)
    return name


def address(engine: Engine, container: str, port: int) -> str:
    return engine.docker("port", container, str(port)).splitlines()[0]


async def test_a_broker_takes_the_user_it_is_told_and_keeps_its_data_under_its_host_s_name(engine: Engine) -> None:
    user = ("--env", "RABBITMQ_DEFAULT_USER=room", "--env", "RABBITMQ_DEFAULT_PASS=secret")
    broker = start(engine, "--hostname=rabbit-1", "--publish=127.0.0.1::5672", *user, RABBITMQ)
    url = f"amqp://room:secret@{address(engine, broker, 5672)}/"

    async def connects() -> bool:
        try:
            await (await aio_pika.connect(url)).close()
        except aio_pika.exceptions.CONNECTION_EXCEPTIONS:
            return False
        return True

    await until(connects, within=90)
    assert "rabbit@rabbit-1" in engine.docker("exec", broker, "rabbitmqctl", "status")
    plugins = engine.docker("exec", broker, "rabbitmq-plugins", "list", "--enabled", "--minimal")
    assert {"rabbitmq_management", "rabbitmq_prometheus"} <= set(plugins.split())
    assert engine.docker("exec", broker, "stat", "--format=%U", "/proc/1") == "rabbitmq"
    engine.docker("rm", "--force", "--volumes", broker)


async def test_a_database_takes_its_password_from_a_file_and_stops_cleanly(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    settings = ("POSTGRES_USER=room", "POSTGRES_DB=room", "POSTGRES_PASSWORD_FILE=/run/password")
    database = start(
        engine,
        *(f"--env={setting}" for setting in settings),
        *("--publish=127.0.0.1::5432", f"--volume={tmp_path}/password:/run/password:ro", POSTGRES),
        *("postgres", "-c", "max_connections=33"),
    )
    host_and_port = address(engine, database, 5432)

    async def connects() -> bool:
        try:
            connection = await asyncpg.connect(f"postgresql://room:secret@{host_and_port}/room")
        except (OSError, asyncpg.CannotConnectNowError):
            return False
        assert await connection.fetchval("SHOW max_connections") == "33"
        await connection.close()
        return True

    await until(connects, within=90)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(f"postgresql://room:wrong@{host_and_port}/room")
    engine.docker("exec", database, "pg_isready", "--quiet", "--username=room")
    engine.docker("stop", "--time=30", database)
    assert engine.docker("inspect", "--format={{.State.ExitCode}}", database) == "0"
    engine.docker("rm", "--volumes", database)


async def test_an_edge_knows_the_other_containers_of_its_network_by_name(engine: Engine, tmp_path: Path) -> None:
    conf = "resolver 127.0.0.11;\nserver { listen 8080; location / { set $to http://${TO}; proxy_pass $to; } }\n"
    (tmp_path / "edge.conf.template").write_text(conf)
    engine.docker("network", "create", "m3-test")
    inside = start(engine, "--network=m3-test", "--network-alias=inside", NGINX)
    templates = f"--volume={tmp_path}:/etc/nginx/templates:ro"
    edge = start(engine, "--network=m3-test", "--publish=127.0.0.1::8080", "--env=TO=inside", templates, NGINX)
    async with httpx2.AsyncClient() as client:

        async def answers() -> bool:
            try:
                answer = await client.get(f"http://{address(engine, edge, 8080)}/")
            except httpx2.TransportError:
                return False
            return "Welcome to nginx" in answer.text

        await until(answers)
    assert '"GET / HTTP/1.' in engine.docker("logs", inside)
    engine.docker("rm", "--force", edge, inside)
    engine.docker("network", "rm", "m3-test")


def test_python_installs_a_package_that_is_pinned_by_its_hash(engine: Engine, tmp_path: Path) -> None:
    pinned = re.search(r"^idna==.*?(?=^\S)", (ROOT / "requirements.lock").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert pinned
    (tmp_path / "requirements.lock").write_text(pinned[0])
    install = "python -m venv /venv && /venv/bin/pip install --quiet --require-hashes -r /lock/requirements.lock"
    look = "/venv/bin/python -c 'import idna; print(idna.encode(\"m3\"))'"
    volume = f"--volume={tmp_path}:/lock:ro"
    assert engine.docker("run", "--rm", volume, PYTHON, "sh", "-c", f"{install} && {look}", within=120) == "b'm3'"


def test_the_second_version_of_compose_is_there_to_read_files(engine: Engine) -> None:
    assert engine.docker("run", "--rm", COMPOSE, "version", "--short").startswith(("2.", "v2."))
