"""Every query of the dashboards and of the alerts, asked of a Prometheus that watches a real room under a little load."""

import asyncio
import math
import os
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from m3.tasks import background
from tests.support.broker import NoBrokerError, private_node
from tests.support.client import client, history, post, socket
from tests.support.database import private_database
from tests.support.packages import Say
from tests.support.processes import Process, processes
from tests.support.prometheus import (
    DASHBOARDS,
    NotInstalledError,
    Prometheus,
    queries,
    rules,
    running_exporter,
    running_prometheus,
)
from tests.support.scripted_model import Behaviour, answers, prompt, says, scripted_model
from tests.support.until import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

SERVICES = ("recorder", "agent", "pusher", "gateway")
FAILING = "the model fails"
#: Seconds in which every query must have data. RabbitMQ counts every 5 s, and a rate takes two scrapes.
WITHIN = 60.0
#: A series by its name and labels, as it stands in a query.
SELECTOR = re.compile(r"(?:\b(?:m3|rabbitmq|pg|process)_\w+|\bup\b)(?:\{[^}]*\})?")
COMPARISON = re.compile(r"(==|!=|>=|<=|>|<)(?![^{]*\})")


def model(body: dict[str, Any]) -> Behaviour:
    return answers("{}", 500) if FAILING in prompt(body) else says("So it is.")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def prometheus(say: Say, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prometheus]:
    folder = tmp_path_factory.mktemp("observed")
    try:
        async with AsyncExitStack() as stack:
            broker = stack.enter_context(private_node(say, observed=True))
            database = await stack.enter_async_context(private_database())
            server = await stack.enter_async_context(scripted_model(model))
            settings = {
                "BROKER_URL": broker.url,
                "DATABASE_URL": database.url,
                "LLM_BASE_URL": server.url,
                "LLM_ATTEMPTS": "1",
                "METRICS_PORT": "0",
            }
            running = processes()
            started = running.__enter__()
            # In a thread, since turns that still run hear from the model by this loop.
            stack.push_async_callback(asyncio.to_thread, running.__exit__, None, None, None)
            started += [Process(command, settings) for command in SERVICES]
            addresses = {each.command: await asyncio.to_thread(each.address) for each in started}
            exporter = stack.enter_context(running_exporter(database.port, folder, say))
            targets = {command: [address.removeprefix("http://")] for command, address in addresses.items()}
            node = [f"127.0.0.1:{broker.metrics_port}"]
            targets |= {"rabbitmq": node, "rabbitmq-queues": node, "postgres": [exporter]}
            await stack.enter_async_context(background("load", talk(addresses["gateway"], addresses["pusher"])))
            yield await stack.enter_async_context(running_prometheus(targets, folder, say))
            return
    except (NoBrokerError, NotInstalledError) as error:
        why = str(error)
    if os.environ.get("CI"):
        pytest.fail(f"CI must test what is observed: {why}")
    pytest.skip(f"NOT TESTED ON PROMETHEUS: {why}")


async def talk(gateway: str, pusher: str) -> None:
    """People and programs, at both doors, and now and then a model that fails; until the test has seen enough."""
    async with client(gateway) as http, socket(pusher, "talk") as listener:
        while True:
            await post(http, "hello", thread_id="talk")
            await listener.say("hello there")
            async with socket(pusher, "talk", events="all") as visitor:
                await visitor.say("passing by", "api")
            await http.post("/api/threads/talk/messages", json=[{"message": "666"}, {"message": "first!"}])
            failed = await http.post("/api/chat", json={"message": FAILING, "thread_id": "failing"})
            assert failed.status_code == httpx2.codes.BAD_GATEWAY
            await history(http, "talk")


async def test_prometheus_reaches_all_that_it_is_to_watch(prometheus: Prometheus) -> None:
    async def all_up() -> bool:
        return {target["health"] for target in await prometheus.targets()} == {"up"}

    await until(all_up, within=WITHIN)
    jobs = {target["labels"]["job"] for target in await prometheus.targets()}
    assert jobs == {*SERVICES, "rabbitmq", "rabbitmq-queues", "postgres", "prometheus"}


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda file: file.stem)
async def test_every_panel_has_data(prometheus: Prometheus, dashboard: Path) -> None:
    await all_have_data(prometheus, [query.replace("$__rate_interval", "1m") for query in queries(dashboard)])


async def test_every_alert_has_the_series_that_it_judges(prometheus: Prometheus) -> None:
    """Its comparisons are made to answer 0 or 1, since on a healthy room they would leave nothing."""
    await all_have_data(prometheus, [COMPARISON.sub(r"\1 bool", rule["expr"]) for rule in rules()])


async def test_every_series_that_is_named_is_there(prometheus: Prometheus) -> None:
    """Each one by itself, with its labels: in an ``or`` a wrong one would go unnoticed."""
    asked = [rule["expr"] for rule in rules()] + [query for each in DASHBOARDS for query in queries(each)]
    await all_have_data(prometheus, {series for query in asked for series in SELECTOR.findall(query)})


async def test_no_alert_fires_on_a_healthy_room(prometheus: Prometheus) -> None:
    """But the one for the model, which fails here."""

    async def judged() -> bool:
        return all(rule["health"] == "ok" for rule in await prometheus.rules())

    await until(judged)
    judging = await prometheus.rules()
    assert {rule["name"] for rule in judging} == {rule["alert"] for rule in rules()}
    assert {rule["name"] for rule in judging if rule["state"] == "firing"} <= {"ModelErrors"}


async def all_have_data(prometheus: Prometheus, queries: Iterable[str]) -> None:
    """Wait until each has had a number in its answer."""
    waiting = set(queries)
    assert waiting

    async def answered() -> bool:
        for query in sorted(waiting):
            if any(math.isfinite(value) for value in await prometheus.values(query)):
                waiting.discard(query)
        return not waiting

    try:
        await until(answered, within=WITHIN)
    except TimeoutError:
        pytest.fail("no data for\n" + "\n".join(sorted(waiting)))
