"""The cluster as it is shipped, on a real Docker engine: brought up, scaled, hurt and taken down under load."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from services.gateway.front import POLICY
from tests.compose.deployment import DOWN, SECOND_COMPOSE, SERVICES, UP, Deployment, deployed, named_images
from tests.compose.engine import CommandError, Engine
from tests.compose.images import images
from tests.faults.checker import violations
from tests.faults.load import Load, Plan
from tests.faults.model import Model
from tests.faults.probe import recovered
from tests.faults.rig import now
from tests.support.packages import Say
from tests.support.scripted_model import ScriptedModel, scripted_model
from tests.support.until import until

# A test may have to wait for containers that are started, and the first for images that are made.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1500)]

#: Half of what one agent answers.
PLAN = Plan(rate=8, threads=24, listeners=24, speakers=2)
#: Turns of an agent at a time.
TURNS = 4
#: Seconds in which queues must be empty once everything is answered. The broker counts every 5 s.
EMPTY = 60.0
#: What Prometheus asks.
JOBS = {*SERVICES, "rabbitmq", "rabbitmq-queues", "postgres", "prometheus"}
#: Turns whose pace is taken.
SAMPLE = 60
#: Seconds that a reply takes at most, and where agents are to be too few.
REPLY = 0.5
LONG_REPLY = 2.0
#: As `tests/faults/rig.py` has it: what is said is answered each, once, whatever it is.
SETTINGS = {
    "AGENT_CONCURRENCY": str(TURNS),
    "API_POLICY": "each",
    "API_TTL": "3600",
    "API_CAP": "1000",
    "AUTH": "open",  # the load has no accounts, and what is tested here nothing to do with them; test_sign_in.py has
    "AUTH_OPEN_ANYWHERE": "yes",
    "CONTEXT_MESSAGES": "10",
    "LLM_ATTEMPTS": "1",
    "LOG_LEVEL": "warning",
    "SWEEP_INTERVAL": "2",
    "TURN_TIMEOUT": "10",
}


@dataclass
class Cluster:
    deployment: Deployment
    model: Model
    say: Say

    @property
    def model_server(self) -> ScriptedModel:
        assert self.model.server is not None
        return self.model.server

    @asynccontextmanager
    async def load(self, name: str, plan: Plan = PLAN) -> AsyncIterator[Load]:
        """Load inside the block; after it every promise must have been kept."""
        load = Load(self.deployment, plan, name)
        async with load.running():
            await until(lambda: load.acknowledged >= plan.rate, within=30)
            yield load
        assert violations(await load.log(queues=await self.left_in_queues())) == []
        assert load.acknowledged > plan.rate

    async def left_in_queues(self) -> dict[str, int]:
        """What waits in each queue once nothing does, or after a while: agents may still have empty knocks."""
        queues: dict[str, int] = {}

        async def empty() -> bool:
            queues.update(await self.deployment.queues())
            return not any(queues.values())

        with suppress(TimeoutError):
            await until(empty, within=EMPTY)
        return queues

    async def recovers(self) -> None:
        """Return when a message is answered and pushed again."""
        took = await recovered(self.deployment, now())
        assert took is not None, await self.deployment.logs()
        self.say(f"well again {took:.1f} s after the containers were")


@asynccontextmanager
async def cluster(engine: Engine, say: Say, folder: Path, *overrides: str) -> AsyncIterator[Cluster]:
    """A deployment whose model is here, where containers find it at the address that this machine has for them."""
    (bridge,) = json.loads(engine.docker("network", "inspect", "bridge"))
    network = bridge["IPAM"]["Config"][0]
    # At its first start an engine does not say which of the addresses it has itself: it is the first.
    host = network.get("Gateway") or str(next(ip_network(network["Subnet"]).hosts()))
    model = Model(REPLY)
    async with scripted_model(model.script, host) as server:
        model.server = server
        settings = SETTINGS | {"LLM_BASE_URL": server.url}
        async with deployed(engine, say, folder, settings, *overrides) as deployment:
            yield Cluster(deployment, model, say)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def room(engine: Engine, say: Say, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with cluster(engine, say, tmp_path_factory.mktemp("m3room")) as room:
        yield room


async def test_the_room_is_reached_through_the_edge_by_http_and_socket(room: Cluster) -> None:
    edge = room.deployment.edge
    async with (
        httpx2.AsyncClient(base_url=edge, timeout=30) as http,
        connect(f"{edge.replace('http', 'ws', 1)}/ws/chat/hello", proxy=None) as socket,
    ):
        assert json.loads(await socket.recv())["type"] == "connected"
        answer = await http.post("/api/chat", json={"thread_id": "hello", "message": "at once"})
        assert (answer.status_code, answer.json()["response"]) == (200, "re: at once")
        pushed = [json.loads(await socket.recv()) for _ in range(2)]
        assert [frame["content"] for frame in pushed] == ["at once", "re: at once"]
        history = (await http.get("/api/threads/hello/history")).json()
        assert [message["content"] for message in history["messages"]] == ["at once", "re: at once"]
        assert (await http.get("/metrics")).status_code == 404
        page = await http.get("/")
        assert page.headers.get_list("Content-Security-Policy") == [POLICY]
        [script] = re.findall(r'src="(/assets/[^"]+)"', page.text)
        assert "immutable" in (await http.get(script)).raise_for_status().headers["Cache-Control"]


async def test_turns_follow_the_number_of_agents_and_scaling_in_breaks_none_off(room: Cluster) -> None:
    scale = ("up", "-d", "--no-recreate", "--scale")
    broken_off, room.model.slowest = room.model_server.broken_off, LONG_REPLY
    async with room.load("scale", Plan(rate=16, threads=40, listeners=20, speakers=2)):
        rates = {}
        for agents in (1, 4):
            await room.deployment.do(
                *scale, f"agent={agents}", "--scale", "pusher=2", "--scale", "gateway=2", within=120
            )
            await room.deployment.healthy(*SERVICES)
            room.model_server.most_at_once = 0
            await until(lambda turns=agents * TURNS: room.model_server.most_at_once == turns, within=60)  # type: ignore[misc]
            begun, asked = now(), room.model.asked
            await until(lambda asked=asked: room.model.asked >= asked + SAMPLE, within=60)  # type: ignore[misc]
            rates[agents] = SAMPLE / (now() - begun)
        room.say(", ".join(f"{agents} agents: {rate:.1f} turns/s" for agents, rate in rates.items()))
        await room.deployment.do(*scale, "agent=2", within=120)
        room.model.slowest = REPLY
    assert room.model_server.broken_off == broken_off
    assert rates[4] > rates[1]


async def test_prometheus_finds_every_container_by_its_services_name(room: Cluster, engine: Engine) -> None:
    observe = "deploy/compose.observe.yml"
    await asyncio.to_thread(images, engine, {one for one in named_images(observe) if "grafana" not in one}, room.say)
    observed = room.deployment.with_files(observe)
    await observed.do("up", "-d", "--no-recreate", "--scale", "agent=2", "agent", within=120)
    await observed.do("up", "-d", "--no-deps", "prometheus", "postgres-exporter", within=120)
    address = (await observed.do("port", "prometheus", "9090")).strip()
    try:
        async with httpx2.AsyncClient(base_url=f"http://{address}") as http:
            up: dict[str, int] = {}

            async def all_are() -> bool:
                with suppress(httpx2.HTTPError, KeyError):
                    answer = await http.get("/api/v1/query", params={"query": "sum by (job) (up)"})
                    up.update({one["metric"]["job"]: int(one["value"][1]) for one in answer.json()["data"]["result"]})
                return (
                    len(up) == len(JOBS)
                    and all(up.values())
                    and up["agent"] == len(room.deployment.containers("agent"))
                )

            await until(all_are, within=90, every=0.5)
        await observed.healthy("prometheus", "postgres-exporter")
    finally:
        await observed.do("rm", "--stop", "--force", "prometheus", "postgres-exporter")
    assert up.keys() == JOBS


@pytest.mark.parametrize("service", [*SERVICES, "nginx", "rabbitmq", "postgres"])
async def test_nothing_is_lost_when_containers_crash(room: Cluster, service: str) -> None:
    async with room.load(f"crash-{service}"):
        await asyncio.to_thread(room.deployment.crash, service)
        await room.deployment.healthy(*SERVICES, "nginx", "rabbitmq", "postgres")
        await room.recovers()


async def test_nothing_is_lost_when_all_is_restarted(room: Cluster) -> None:
    async with room.load("restart"):
        await room.deployment.do("restart", within=300)
        await room.deployment.healthy(*SERVICES, "nginx", "rabbitmq", "postgres")
        await room.recovers()


async def test_the_runbooks_upgrade_stops_nothing_and_loses_nothing(room: Cluster) -> None:
    deployment = room.deployment
    before = {service: deployment.containers(service) for service in SERVICES}
    broken_off = room.model_server.broken_off
    async with room.load("upgrade"):
        await deployment.follow_runbook("Upgrade", leaving_out="git pull")
        await deployment.healthy(*SERVICES)
    for service, containers in before.items():
        now_there = deployment.containers(service)
        assert len(now_there) == len(containers)
        assert set(now_there).isdisjoint(containers)
    assert room.model_server.broken_off == broken_off


async def test_a_setting_that_is_wrong_stays_without_effect_where_services_are_rolled(room: Cluster) -> None:
    before = room.deployment.containers("recorder")
    with room.deployment.told("API_TTL=soon"), pytest.raises(CommandError, match="the old ones run on"):
        await room.deployment.shell("HEALTHY=5 sh deploy/roll.sh recorder")
    assert room.deployment.containers("recorder") == before
    await room.deployment.healthy("recorder")


async def test_the_runbooks_backup_comes_back_and_clients_that_saw_more_are_told(room: Cluster) -> None:
    deployment = room.deployment
    async with httpx2.AsyncClient(base_url=deployment.edge, timeout=30) as http:

        async def say(message: str) -> int:
            answer = await http.post("/api/chat", json={"thread_id": "kept", "message": message})
            return int(answer.raise_for_status().json()["reply_seq"])

        kept = await say("at once, before")
        await deployment.follow_runbook("Backup and restore", block=0)
        seen = await say("at once, after")
        await deployment.follow_runbook("Backup and restore", block=1, replacing=("2026-01-31", "*"))
        await deployment.healthy(*SERVICES, "nginx")
        await room.recovers()
        history = (await http.get("/api/threads/kept/history")).json()["messages"]
        assert [message["content"] for message in history] == ["at once, before", "re: at once, before"]
    async with connect(f"{deployment.edge.replace('http', 'ws', 1)}/ws/chat/kept?after={seen}", proxy=None) as socket:
        frames = [json.loads(await socket.recv()) for _ in range(2)]
        assert {"type": "reset", "head": kept}.items() <= frames[1].items()


async def test_the_runbooks_new_passwords_are_taken_while_the_room_works(room: Cluster) -> None:
    async with room.load("passwords", Plan(rate=6, threads=8, listeners=8, speakers=2)):
        await room.deployment.follow_runbook("Settings and secrets", block=1)
        await room.deployment.healthy(*SERVICES)
        await room.recovers()


async def test_the_runbooks_line_makes_as_many_agents_as_the_queues_want(room: Cluster) -> None:
    await room.deployment.do("up", "-d", "--no-recreate", "--scale", "agent=3", within=120)
    await room.deployment.follow_runbook("Scale", block=1, replacing=("while sleep 15", "for once in 1"))
    assert len(room.deployment.containers("agent")) == 1


async def test_the_doctor_finds_all_well(room: Cluster) -> None:
    # With the demo model: that of the load answers nothing but turns.
    told = await room.deployment.do("run", "--rm", "-T", "-e", "LLM_BASE_URL=", "doctor", "--json", within=120)
    report = json.loads(told[told.index("{") :])
    assert report["well"], report
    assert {"ok", "warning"} >= {finding["mark"] for finding in report["findings"]}, report


async def test_every_service_stops_within_its_grace(room: Cluster) -> None:
    begun = now()
    await room.deployment.do("stop", *SERVICES, "nginx", within=120)
    room.say(f"stopped after {now() - begun:.1f} s")
    codes = {service: room.deployment.exit_codes(service) for service in SERVICES}
    assert all(codes.values())
    assert {code for several in codes.values() for code in several} == {0}, codes  # 137 would be the end of the grace


async def test_the_second_compose_brings_it_up_scales_it_and_takes_it_down(room: Cluster, engine: Engine) -> None:
    if engine.compose == ("docker", "compose"):
        pytest.skip("all that is above was done by the second compose")
    await asyncio.to_thread(images, engine, [SECOND_COMPOSE], room.say)
    await room.deployment.do("down", within=DOWN)
    second = Cluster(room.deployment.by_second_compose(), room.model, room.say)
    everything = (*SERVICES, "nginx", "rabbitmq", "postgres")
    await second.deployment.do("up", "-d", within=UP)
    await second.deployment.healthy(*everything)
    async with second.load("second"):
        await second.deployment.do("up", "-d", "--no-recreate", "--scale", "agent=3", "--scale", "pusher=2", within=120)
        await second.deployment.healthy(*everything)
        assert len(second.deployment.containers("agent")) == 3
        await second.recovers()
    await second.deployment.do("down", within=DOWN)
    assert second.deployment.compose("ps", "-aq") == ""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def three_brokers(engine: Engine, say: Say, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    folder, nodes = tmp_path_factory.mktemp("m3nodes"), "deploy/compose.cluster.yml"
    async with cluster(engine, say, folder, nodes) as room:
        yield room


@pytest.mark.parametrize("node", ["rabbitmq", "rabbitmq-2"])
async def test_the_room_goes_on_without_one_of_three_broker_nodes(three_brokers: Cluster, node: str) -> None:
    deployment = three_brokers.deployment
    async with three_brokers.load(f"node-{node}"):
        await deployment.do("kill", node)  # by an operator's hand, and so it stays away
        await three_brokers.recovers()
        await deployment.do("start", node)
        await deployment.healthy(node)
        await three_brokers.recovers()
