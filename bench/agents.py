"""``python -m bench.agents``: how many turns a second agents do side by side, and what a killed one costs."""

import asyncio
import re
import signal
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import cpu, rooms
from bench.model import Count, ModelProcess, model_process
from bench.rooms import running, say
from m3.bus import open_bus
from m3.events import MessageAccepted, encode_within
from m3.store import open_store
from m3.store.embedded import embedded_postgres
from m3.topology import accepted
from tests.support.processes import Process
from tests.support.until import until

#: Agents, and the seconds that the model takes for a reply: in the last run few enough turns a second for the cores.
RUNS = ((1, 1.0), (2, 1.0), (4, 1.0), (8, 1.0), (8, 4.0))
#: Turns that each agent runs side by side.
PLACES = 16
THREADS = 256

#: Of a reply.
PIECES = 20

#: Seconds before the window, from when every agent has ended its first turns.
WARM_UP = 10.0
#: Seconds of one measure.
WINDOW = 30.0
#: Seconds for which there is a backlog, with the ideal number of turns: a start, the warm-up, the window, and more.
BACKLOG = 90.0
AIM = 0.95
#: What takes part in a turn, in the order of the report.
SERVERS = ("agents", "recorder", "PostgreSQL", "RabbitMQ", "model")

KILLS = 5
KILL_REPLY_SECONDS = 1.0
#: Messages when one is killed, each in a thread of its own: more than the one can take.
MESSAGES = 48
#: Turns that the agent which is not killed can run: it has room for the other's.
ROOMY = 64
#: Seconds after the last of its turns began when the agent is killed.
INTO_TURN = 0.3
MOST_SECONDS = 5.0
#: Seconds in which every message must have a reply.
PATIENCE = 60.0
#: Seconds more in which a doubled reply would have come.
AFTERMATH = 3.0

#: Bodies for the recorder, in bytes.
BODY = 64 * 1024


@dataclass
class Backbone:
    """What agents work on."""

    model: ModelProcess
    database_url: str
    settings: dict[str, str]
    servers: dict[str, int]


@dataclass
class Look:
    """All counters at one moment."""

    time: float
    replies: int
    cpu: dict[str, float]
    machine: tuple[float, float]
    model: Count


@dataclass
class Run:
    """So many agents, between two looks."""

    agents: int
    reply_seconds: float
    before: Look
    after: Look
    #: Threads in which a message still waited at the end.
    busy: int

    @property
    def turns(self) -> int:
        return self.after.replies - self.before.replies

    @property
    def per_second(self) -> float:
        return self.turns / (self.after.time - self.before.time)

    @property
    def ideal(self) -> float:
        return self.agents * PLACES / self.reply_seconds

    @property
    def model_seconds(self) -> float:
        """Of a reply, at the model."""
        replies = self.after.model.said.total() - self.before.model.said.total()
        return (self.after.model.seconds - self.before.model.seconds) / replies

    @property
    def by_agent(self) -> list[int]:
        """Turns of each agent, as the model counts them."""
        return [count - self.before.model.said[key] for key, count in self.after.model.said.items()]

    def cpu_per_turn(self, server: str) -> float:
        return (self.after.cpu[server] - self.before.cpu[server]) / self.turns

    @property
    def own_share(self) -> float:
        """The part of all cores' time that what takes part in a turn used."""
        used = sum(self.after.cpu[server] - self.before.cpu[server] for server in SERVERS if server in self.after.cpu)
        return used / (self.after.machine[1] - self.before.machine[1])


@dataclass
class Kill:
    """What came of one."""

    #: Of the killed agent's turns, seconds from its death until each one's reply was recorded, without the model's.
    delays: list[float]
    #: The number of replies to each message of the room.
    replies: list[int]


async def _measure(folder: Path, broker_url: str) -> str:
    runs: list[Run] = []
    for agents, reply_seconds in RUNS:
        say(f"{agents} agents, {reply_seconds:g} s a turn")
        async with _backbone(folder / f"run-{len(runs)}", broker_url, reply_seconds) as backbone:
            runs.append(await _run(agents, reply_seconds, backbone))
    kills = []
    async with _backbone(folder / "kills", broker_url, KILL_REPLY_SECONDS) as backbone:
        for number in range(KILLS):
            say(f"kill {number + 1}")
            kills.append(await _kill(number, backbone, broker_url))
    return _report(runs, kills)


@asynccontextmanager
async def _backbone(folder: Path, broker_url: str, reply_seconds: float) -> AsyncIterator[Backbone]:
    """Everything but agents, with nothing in it."""
    await rooms.empty_broker(broker_url)
    async with embedded_postgres(folder) as database_url:
        with ExitStack() as stack:
            model = stack.enter_context(model_process(reply_seconds, PIECES))
            settings = {"BROKER_URL": broker_url, "DATABASE_URL": database_url, "LLM_BASE_URL": model.url}
            recorder = stack.enter_context(running("recorder", **settings))
            recorder.started()
            servers = {"recorder": recorder.pid, **rooms.servers_of(folder), "model": model.pid}
            yield Backbone(model, database_url, settings, servers)


@contextmanager
def _agents(places: dict[str, int], backbone: Backbone) -> Iterator[dict[str, Process]]:
    """Agents by name, each of which can run so many turns at a time."""
    with ExitStack() as stack:
        agents = {
            name: stack.enter_context(
                running("agent", LLM_API_KEY=name, AGENT_CONCURRENCY=str(count), **backbone.settings)
            )
            for name, count in places.items()
        }
        for agent in agents.values():
            agent.started()
        yield agents


async def _run(count: int, reply_seconds: float, backbone: Backbone) -> Run:
    await _fill(backbone.database_url, 1 + round(BACKLOG * count * PLACES / reply_seconds / THREADS))
    with _agents({f"agent-{number}": PLACES for number in range(count)}, backbone) as agents:

        async def all_at_work() -> bool:
            return len((await backbone.model.count()).said) == count

        await until(all_at_work, within=PATIENCE)
        await asyncio.sleep(WARM_UP)
        before = await _look(backbone, agents)
        await asyncio.sleep(WINDOW)
        after = await _look(backbone, agents)
        query = "SELECT count(DISTINCT thread_id) FROM dialogue WHERE fate = 'pending'"
        ((busy,),) = await rooms.rows(backbone.database_url, query)
        return Run(count, reply_seconds, before, after, busy)


async def _fill(database_url: str, each: int) -> None:
    """Record so many messages in each thread, past the bus: nobody announces them."""
    async with open_store(database_url, pool_size=1) as store:
        for number in range(each):
            await store.record([_message(f"busy-{thread}", f"Question {number}?") for thread in range(THREADS)])


def _message(thread_id: str, text: str) -> MessageAccepted:
    return MessageAccepted(thread_id=thread_id, source="user", content=text, interface="http_api", origin="bench")


async def _look(backbone: Backbone, agents: dict[str, Process]) -> Look:
    servers = backbone.servers | {name: agent.pid for name, agent in agents.items()}
    model = await backbone.model.count()
    used = cpu.seconds(servers)
    used["agents"] = sum(used[name] for name in agents)
    ((replies,),) = await rooms.rows(backbone.database_url, "SELECT count(*) FROM dialogue WHERE source = 'assistant'")
    return Look(time.monotonic(), replies, used, cpu.machine(), model)


async def _kill(number: int, backbone: Backbone, broker_url: str) -> Kill:
    """Kill one of two agents in the middle of all its turns."""
    victim, other = f"victim-{number}", f"other-{number}"
    threads = [f"kill-{number}-{thread}" for thread in range(MESSAGES)]
    with _agents({victim: PLACES, other: ROOMY}, backbone) as agents:
        await _say_in(threads, broker_url)

        async def victim_is_full() -> bool:
            return len((await backbone.model.count()).open.get(victim, [])) == PLACES

        await until(victim_is_full)
        await asyncio.sleep(INTO_TURN)
        running_now = (await backbone.model.count()).open[victim]
        agents[victim].signal(signal.SIGKILL)
        killed = time.time()
        orphans = {found[0] for asked in running_now if (found := re.search(r"kill-\d+-\d+", asked))}
        assert len(orphans) == PLACES, running_now
        await until(partial(_all_replied, backbone, threads), within=PATIENCE)
        await asyncio.sleep(AFTERMATH)
    replies = await rooms.rows(
        backbone.database_url,
        """
        SELECT asked.thread_id, count(reply), min(extract(epoch FROM reply.timestamp))::float8
        FROM dialogue AS asked LEFT JOIN dialogue AS reply ON asked.message_id = ANY(reply.in_reply_to)
        WHERE asked.thread_id = ANY($1) AND asked.source = 'user'
        GROUP BY asked.message_id, asked.thread_id
        """,
        threads,
    )
    delays = [when - killed - KILL_REPLY_SECONDS for thread_id, _, when in replies if thread_id in orphans]
    return Kill(delays, [count for _, count, _ in replies])


async def _say_in(threads: list[str], broker_url: str) -> None:
    """A message in each thread, through the one door in."""
    messages = [_message(thread, f"Are you there, {thread}?") for thread in threads]
    async with open_bus(broker_url) as bus:
        for body in encode_within(messages, BODY):
            await bus.publish(accepted(), body)


async def _all_replied(backbone: Backbone, threads: list[str]) -> bool:
    query = "SELECT count(DISTINCT thread_id) FROM dialogue WHERE thread_id = ANY($1) AND source = 'assistant'"
    ((replied,),) = await rooms.rows(backbone.database_url, query, threads)
    return bool(replied == len(threads))


def _report(runs: list[Run], kills: list[Kill]) -> str:
    delays = [delay for kill in kills for delay in kill.delays]
    replies = [count for kill in kills for count in kill.replies]
    return f"""\
## Turns of agents side by side

| agents | model | ideal | turns a second | of the ideal | turns of one agent, least and most | model's own time |
|---:|---:|---:|---:|---:|---:|---:|
{_turn_rows(runs)}

| agents | model | CPU a turn: agents | recorder | PostgreSQL | RabbitMQ | model | all cores at work | with these |
|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{_cpu_rows(runs)}

The aim is at least {AIM:.0%} of the ideal until the cores are full. A turn is a reply that was recorded within a window
of {WINDOW:g} s, which begins {WARM_UP:g} s after the last agent's first reply; each agent runs {PLACES} side by side
(`AGENT_CONCURRENCY`), and the model streams its reply in {PIECES} pieces, so that the ideal is agents times {PLACES}
by the model's seconds. What the model really took is in the last column: where it is more, its own process waited for a
core. {_busy(runs)}
Their messages are recorded before the agents start, straight into the table, and found by the agents' sweep at their
start. Recorder, RabbitMQ, PostgreSQL and the model, which is a process of its own, share the machine with the agents;
there is no gateway and no pusher, so nobody reads the pieces that the agents publish. CPU is utime and stime from
`/proc`. The cores' work is the machine's, with whatever else it did meanwhile and what its host took from it; "with
these" is what agents and servers had of it.

## An agent killed in the middle of its turns

| | median | longest | aim |
|---|---:|---:|---:|
| from the kill to the recorded reply, less the model's {KILL_REPLY_SECONDS:g} s | {statistics.median(delays):.2f} s \
| {max(delays):.2f} s | at most {MOST_SECONDS:g} s |

| messages | with one reply | with more | with none |
|---:|---:|---:|---:|
| {len(replies)} | {replies.count(1)} | {sum(count > 1 for count in replies)} | {replies.count(0)} |

Two agents and {MESSAGES} threads with a message each, said at once. One agent runs {PLACES} turns, and is killed with
SIGKILL {INTO_TURN:g} s after the model was asked for the last of them; the other has the rest, and room for {ROOMY}.
{KILLS} times, so {len(delays)} turns went on elsewhere. Replies are counted in the table {AFTERMATH:g} s after the last
message had one."""


def _turn_rows(runs: list[Run]) -> str:
    return "\n".join(
        f"| {run.agents} | {run.reply_seconds:g} s | {run.ideal:g} | {run.per_second:.1f} "
        f"| {run.per_second / run.ideal:.1%} | {min(run.by_agent)} to {max(run.by_agent)} | {run.model_seconds:.3f} s |"
        for run in runs
    )


def _cpu_rows(runs: list[Run]) -> str:
    return "\n".join(
        f"| {run.agents} | {run.reply_seconds:g} s | {' | '.join(_cpu(run, server) for server in SERVERS)} "
        f"| {cpu.share(run.before.machine, run.after.machine):.0%} | {run.own_share:.0%} |"
        for run in runs
    )


def _cpu(run: Run, server: str) -> str:
    """A broker that was not started for this measure is nobody's here."""
    return rooms.ms(run.cpu_per_turn(server)) if server in run.before.cpu else "?"


def _busy(runs: list[Run]) -> str:
    busy = f"{THREADS} threads are busy: each has messages pending from the beginning to the end of each window."
    if all(run.busy == THREADS for run in runs):
        return busy
    return f"{busy[:-1]}, but for some that were done: {', '.join(str(run.busy) for run in runs)} were busy in the end."


if __name__ == "__main__":
    rooms.run("Agents", _measure)
