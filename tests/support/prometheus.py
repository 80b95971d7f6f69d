"""A real Prometheus and PostgreSQL's exporter, as Debian has them, on the project's own configuration."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml

from tests.support.packages import Say, install
from tests.support.ports import free_ports
from tests.support.until import until

DEPLOY = Path(__file__).parents[2] / "deploy"
CONFIGURATION = DEPLOY / "prometheus/prometheus.yml"
ALERTS = DEPLOY / "prometheus/alerts.yml"
DASHBOARDS = sorted((DEPLOY / "grafana/dashboards").iterdir())
#: The packages that the programs are in.
PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-postgres-exporter": "prometheus-postgres-exporter",
}


def rules() -> list[dict[str, Any]]:
    """Those of all alerts."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels(dashboard: Path) -> list[dict[str, Any]]:
    """Those that show something."""
    return [panel for panel in json.loads(dashboard.read_text())["panels"] if panel["type"] != "row"]


def queries(dashboard: Path) -> list[str]:
    return [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]


class NotInstalledError(Exception):
    """The machine lacks a program, and it could not be installed."""


def program(name: str, say: Say) -> str:
    """Where it is. Raises NotInstalledError."""
    found = shutil.which(name) or (shutil.which(name) if install(PACKAGES[name], say) else None)
    if found is None:
        raise NotInstalledError(f"no {name}: install the package {PACKAGES[name]}")
    return found


class Prometheus:
    """A server that runs just now."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def ready(self) -> bool:
        try:
            return (await self._http.get("/-/ready")).status_code == httpx2.codes.OK
        except httpx2.HTTPError:
            return False

    async def values(self, query: str) -> list[float]:
        """Each series' value just now. Raises AssertionError where Prometheus does not understand the query."""
        answer = await self._ask("query", query=query)
        assert answer["resultType"] == "vector", query
        return [float(series["value"][1]) for series in answer["result"]]

    async def targets(self) -> list[dict[str, Any]]:
        """What it scrapes, and how that went."""
        targets: list[dict[str, Any]] = (await self._ask("targets"))["activeTargets"]
        return targets

    async def rules(self) -> list[dict[str, Any]]:
        """Each alert's rule, with how it is."""
        return [rule for group in (await self._ask("rules"))["groups"] for rule in group["rules"]]

    async def _ask(self, what: str, **parameters: str) -> Any:
        answer = await self._http.get(f"/api/v1/{what}", params=parameters)
        assert answer.status_code == httpx2.codes.OK, f"{parameters}: {answer.text}"
        return answer.json()["data"]


@asynccontextmanager
async def running_prometheus(targets: Mapping[str, Sequence[str]], folder: Path, say: Say) -> AsyncIterator[Prometheus]:
    """On the shipped configuration, but that it finds each job's ``targets`` at the addresses given, and asks and judges
    each second."""
    launcher = program("prometheus", say)
    (port,) = free_ports(1)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(_configuration({**targets, "prometheus": [_local(port)]})))
    command = [
        launcher,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={_local(port)}",
        "--log.level=warn",
    ]
    with _child(command, folder / "prometheus.log"):
        async with httpx2.AsyncClient(base_url=f"http://{_local(port)}", timeout=10) as http:
            prometheus = Prometheus(http)
            await until(prometheus.ready)
            yield prometheus


def _configuration(targets: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    configuration: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
    configuration["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(CONFIGURATION.with_name(name)) for name in configuration["rule_files"]]
    for job in configuration["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": list(targets[job["job_name"]])}]
    return configuration


def _local(port: int) -> str:
    return f"127.0.0.1:{port}"


@contextmanager
def running_exporter(database_port: int, folder: Path, say: Say) -> Iterator[str]:
    """PostgreSQL's exporter, told where the database is as in deploy/compose.observe.yml; yields its address."""
    launcher = program("prometheus-postgres-exporter", say)
    (port,) = free_ports(1)
    (folder / "password").write_text("unasked")
    environment = {
        "DATA_SOURCE_URI": f"{_local(database_port)}/postgres?sslmode=disable",
        "DATA_SOURCE_USER": "postgres",
        "DATA_SOURCE_PASS_FILE": str(folder / "password"),
    }
    with _child([launcher, f"--web.listen-address={_local(port)}"], folder / "exporter.log", environment):
        yield _local(port)


@contextmanager
def _child(command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
