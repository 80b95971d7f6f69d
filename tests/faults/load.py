"""A seeded load: senders that try again with the same key, and sockets that reconnect after what they have seen.

All of it is written down as ``checker.Log`` wants it.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from m3.tenants import DEFAULT, key_of, thread_id_of
from tests.faults.checker import ANSWERED, Frame, Heard, Log, Row, Said, Sitting, Verdict
from tests.faults.model import FAILING
from tests.faults.rig import Doors, now
from tests.support.until import until

#: Tries of one message, and seconds between two.
TRIES = 10
PAUSE = 1.0
#: Seconds that a POST may take.
POST_TIMEOUT = 12.0
#: Messages that may be on their way at a time; past it the load is held back.
MOST_AT_ONCE = 400
#: Seconds that a socket waits for an answer to what it said.
SAY_TIMEOUT = 8.0
#: Seconds that a room may take to come to rest.
REST = 120.0


@dataclass(frozen=True)
class Plan:
    seed: int = 1
    #: Messages a second.
    rate: float = 25.0
    threads: int = 50
    listeners: int = 100
    #: Sockets that say something, about once a second each.
    speakers: int = 8


@dataclass(frozen=True)
class Caller:
    """As whom the load comes to the doors: the headers of a person, and of a program, where the room asks for them."""

    tenant: str = DEFAULT
    person: Mapping[str, str] = field(default_factory=dict)
    program: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Load:
    """Run it inside ``running``, then let it come to ``rest`` and ask for its ``log``. Loads of one name use the same
    threads and keys, whatever their tenant."""

    room: Doors
    plan: Plan
    name: str
    caller: Caller = field(default_factory=Caller)
    said: list[Said] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    #: Answers that no client should get.
    odd: list[str] = field(default_factory=list)
    #: How often somebody looked for what is another tenant's, and was told rightly.
    looks: int = 0
    #: The messages that turns answered of which listeners were told.
    news: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.plan.seed} {self.name}")
        self.threads = threads_of(self.name, self.plan)
        self._count = 0
        self._stopped = asyncio.Event()
        self.resting = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Senders and listeners inside the block; leaving it waits for the senders, and for the room to rest."""
        async with asyncio.TaskGroup() as group:
            listeners = []
            for number in range(self.plan.listeners):
                listener = _Listener(self, number)
                self.heard.append(listener.heard)
                listeners.append(group.create_task(listener.listen(), name=listener.heard.name))
            try:
                async with asyncio.TaskGroup() as senders:
                    senders.create_task(self._post_all(senders), name="posts")
                    for number in range(self.plan.speakers):
                        senders.create_task(_Speaker(self, number).speak(), name=f"speaker {number}")
                    try:
                        yield
                    finally:
                        self._stopped.set()
                self.resting.set()
                await self._rest()
            finally:
                for task in listeners:
                    task.cancel()

    @property
    def acknowledged(self) -> int:
        return sum(said.verdict == "acknowledged" for said in self.said)

    def new_content(self) -> str:
        """Something that nobody said before, in any tenant."""
        self._count += 1
        content = f"{self.name} {self._count}" + (f", {FAILING}" if self.random.random() < 0.04 else "")
        return content if self.caller.tenant == DEFAULT else f"{content}{_OF}{self.caller.tenant}"

    def is_own(self, content: str) -> bool:
        """Whether that was said, or answered, in this load's tenant."""
        return content.partition(_OF)[2] == ("" if self.caller.tenant == DEFAULT else self.caller.tenant)

    async def pause(self, rate: float) -> bool:
        """Wait for the next of so many a second; False when the load is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.random.expovariate(rate)):
                await self._stopped.wait()
        return not self._stopped.is_set()

    async def _post_all(self, senders: asyncio.TaskGroup) -> None:
        at_once: set[asyncio.Task[None]] = set()
        rate = max(1.0, self.plan.rate - self.plan.speakers)
        async with httpx2.AsyncClient(timeout=POST_TIMEOUT, limits=httpx2.Limits(max_connections=None)) as http:
            while await self.pause(rate):
                if len(at_once) < MOST_AT_ONCE:
                    poster = _Poster(self, http, self.random.choice(self.threads), self.new_content())
                    task = senders.create_task(poster.post(), name="post")
                    at_once.add(task)
                    task.add_done_callback(at_once.discard)
            if at_once:
                await asyncio.wait(at_once)

    async def _rest(self) -> None:
        """Return when everything is answered and pushed, or after a while; what is missing then is found in the log."""
        with suppress(TimeoutError, OSError, asyncpg.PostgresError):
            async with asyncio.timeout(REST):
                connection = await asyncpg.connect(**self.room.database_address)
                try:
                    await until(lambda: self._settled(connection), within=REST, every=0.2)
                    last = {row.thread: row.seq for row in await _rows(connection, self._pattern)}  # ordered by number
                    heads = await self._heads(connection)
                    await until(lambda: all(_is_up_to(heard, last, heads) for heard in self.heard), within=REST)
                finally:
                    await connection.close()
        await asyncio.sleep(0.5)  # for whatever is pushed although nothing is left to push

    @property
    def _pattern(self) -> str:
        """For LIKE: what the load's threads are called in the table."""
        return key_of(self.caller.tenant, f"{self.name}:%")

    async def _settled(self, connection: Any) -> bool:
        query = "SELECT NOT EXISTS (SELECT FROM dialogue WHERE fate = 'pending' AND thread_id LIKE $1)"
        return bool(await connection.fetchval(query, self._pattern))

    async def _heads(self, connection: Any) -> dict[str, int]:
        heads = await connection.fetch("SELECT * FROM threads WHERE thread_id LIKE $1", self._pattern)
        return {thread_id_of(head["thread_id"]): head["head"] for head in heads if head["head"]}

    async def log(self, **more: Any) -> Log:
        connection = await asyncpg.connect(**self.room.database_address)
        try:
            rows = await _rows(connection, self._pattern)
            heads = await self._heads(connection)
        finally:
            await connection.close()
        return Log(
            said=self.said,
            rows=rows,
            heads=heads,
            heard=self.heard,
            odd=self.odd,
            news=self.news,
            **more,
        )


async def _rows(connection: Any, pattern: str) -> list[Row]:
    rows = await connection.fetch("SELECT * FROM dialogue WHERE thread_id LIKE $1 ORDER BY thread_id, seq", pattern)
    return [
        Row(
            thread_id_of(row["thread_id"]),
            row["seq"],
            row["rev"],
            str(row["message_id"]),
            row["content"],
            row["fate"],
            str(row["reply_id"]) if row["reply_id"] else None,
            tuple(map(str, row["in_reply_to"])),
        )
        for row in rows
    ]


def _is_up_to(heard: Heard, last: dict[str, int], heads: dict[str, int]) -> bool:
    """Whether a listener has the last that it is to hear of its thread."""
    frames = [frame for sitting in heard.sittings for frame in sitting.frames]
    if not frames:
        return heard.thread not in heads or all(sitting.after is None for sitting in heard.sittings)
    end = heads[heard.thread] if heard.everything else last[heard.thread]
    return frames[-1].kind != ANSWERED and frames[-1].number >= end


#: What is said in other tenants than the default one ends with this and the tenant, and its key does not.
_OF = " of "


def threads_of(name: str, plan: Plan) -> list[str]:
    """The threads of a load of this name."""
    return [f"{name}:{number}" for number in range(plan.threads)]


def _key(content: str) -> str:
    """The sender's own for what it says: the same in every tenant."""
    return content.partition(_OF)[0]


class _Poster:
    """Says one thing by HTTP until it knows what became of it."""

    def __init__(self, load: Load, http: httpx2.AsyncClient, thread: str, content: str) -> None:
        self._load = load
        self._http = http
        self._body = {"thread_id": thread, "message": content, "source": load.random.choice(["user", "api"])}
        headers = load.caller.person if self._body["source"] == "user" else load.caller.program
        self._headers = dict(headers) if load.random.random() < 0.3 else {**headers, "Prefer": "respond-async"}
        self._keyed = load.random.random() < 0.85
        if self._keyed:
            self._headers["Idempotency-Key"] = _key(content)
            if load.random.random() < 0.5:
                self._headers["M3-Client"] = f"load {load.name}"
        self._turn = load.random.randrange(1000)

    async def post(self) -> None:
        begun = now()
        doubted = False
        for attempt in range(TRIES if self._keyed else 1):
            if attempt:
                await asyncio.sleep(PAUSE)
            verdict, answer = await self._try(self._body)
            if verdict == "acknowledged":
                self._write_down(verdict, begun, answer)
                await self._tease(begun, answer)
                return
            doubted = doubted or verdict == "unknown"
            if answer.get("final"):
                break
        self._write_down("unknown" if doubted else "refused", begun, {})

    async def _tease(self, begun: float, first: dict[str, Any]) -> None:
        """Now and then say it again with the same key, or another thing with that key."""
        chance = self._load.random.random()
        if not self._keyed or chance > 0.06:
            return
        if chance < 0.04:
            verdict, answer = await self._try(self._body)
            if verdict == "acknowledged" and answer["message_id"] != first["message_id"]:
                self._load.odd.append(f"the same key made {first['message_id']} and {answer['message_id']}")
            elif answer.get("final"):
                self._load.odd.append(f"the same key was refused: {answer}")
            return
        other = self._body | {"message": self._load.new_content()}
        verdict, answer = await self._try(other)
        if verdict == "acknowledged":
            self._load.odd.append(f"a key was used twice: {answer}")
        self._load.said.append(
            Said(other["thread_id"], other["message"], "unknown" if verdict == "unknown" else "refused", begun)
        )

    async def _try(self, body: dict[str, Any]) -> tuple[Verdict, dict[str, Any]]:
        gateways = self._load.room.gateways
        self._turn += 1
        try:
            response = await self._http.post(
                f"{gateways[self._turn % len(gateways)]}/api/chat", json=body, headers=self._headers
            )
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            return "refused", {}
        except (httpx2.HTTPError, OSError):
            return "unknown", {}
        return self._understand(response)

    def _understand(self, response: httpx2.Response) -> tuple[Verdict, dict[str, Any]]:
        try:
            answer: dict[str, Any] = response.json()
        except ValueError:
            answer = {"code": f"no JSON: {response.text[:200]}"}
        status, code = response.status_code, answer.get("code")
        if status in {200, 202} or code == "model_failed":
            return "acknowledged", answer
        if status == 503:
            if "Retry-After" not in response.headers:
                self._load.odd.append(f"503 {code} without Retry-After")
            return ("refused" if code == "overloaded" else "unknown"), answer
        if 400 <= status < 500:
            if code != "key_reused":
                self._load.odd.append(f"{status} {answer}")
            return "refused", answer | {"final": True}
        self._load.odd.append(f"{status} {answer}")
        return "unknown", answer

    def _write_down(self, verdict: Verdict, begun: float, answer: dict[str, Any]) -> None:
        self._load.said.append(
            Said(
                self._body["thread_id"],
                self._body["message"],
                verdict,
                begun,
                answer.get("message_id"),
                answer.get("seq"),
                answer.get("reply_id"),
            )
        )


class _Speaker:
    """Says one thing after the other over sockets, each until it is recorded."""

    def __init__(self, load: Load, number: int) -> None:
        self._load = load
        self._name = f"speaker-{load.name}-{number}"
        self._turn = number
        self._connection: ClientConnection | None = None
        self._thread = load.random.choice(load.threads)

    async def speak(self) -> None:
        try:
            while await self._load.pause(1.0):
                await self._say(self._load.new_content())
        finally:
            await self._hang_up()

    async def _say(self, content: str) -> None:
        begun = now()
        doubted = False
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(PAUSE)
            sent = False
            try:
                async with asyncio.timeout(SAY_TIMEOUT):
                    connection = await self._connected()
                    sent = True
                    frame = {"type": "message", "message": content, "source": "user", "client_id": _key(content)}
                    await connection.send(json.dumps(frame))
                    answer = await self._answer(connection, _key(content))
            except (TimeoutError, OSError, WebSocketException):
                await self._hang_up()
                doubted = doubted or sent
                continue
            if answer["type"] == "recorded":
                self._write_down(content, "acknowledged", begun, answer)
                return
            if answer["code"] in {"invalid_message", "key_reused"}:
                self._load.odd.append(f"a socket was told {answer}")
                break
            doubted = doubted or answer["code"] != "overloaded"
        self._write_down(content, "unknown" if doubted else "refused", begun, {})

    def _write_down(self, content: str, verdict: Verdict, begun: float, answer: dict[str, Any]) -> None:
        said = Said(self._thread, content, verdict, begun, answer.get("message_id"), answer.get("seq"))
        self._load.said.append(said)

    async def _answer(self, connection: ClientConnection, client_id: str) -> dict[str, Any]:
        while True:
            frame: dict[str, Any] = json.loads(await connection.recv())
            if frame["type"] in {"recorded", "error"} and frame.get("client_id") == client_id:
                return frame

    async def _connected(self) -> ClientConnection:
        if self._connection is None:
            pushers = self._load.room.pushers
            self._turn += 1
            address = pushers[self._turn % len(pushers)].replace("http", "ws", 1)
            url = f"{address}/ws/chat/{self._thread}?client={self._name}"
            headers = self._load.caller.person
            self._connection = await connect(
                url, additional_headers=headers, close_timeout=1, proxy=None, compression=None
            )
        return self._connection

    async def _hang_up(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(OSError, WebSocketException):
                await connection.close()


class _Listener:
    """A socket that always comes back, at the next pusher, and asks for what is after the last that it saw."""

    def __init__(self, load: Load, number: int) -> None:
        self._load = load
        self._random = random.Random(f"{load.plan.seed} {number}")
        self._manner = ("fast", "slow", "flapping")[number % 3]
        self._from_now = self._random.random() < 0.2
        everything = self._random.random() < 0.5
        thread = load.threads[number % len(load.threads)]
        self.heard = Heard(f"{self._manner} socket {number}", thread, everything=everything)
        self._last: int | None = None if self._from_now else 0
        self._turn = number

    async def listen(self) -> None:
        while True:
            with suppress(OSError, TimeoutError, WebSocketException):
                async with connect(
                    self._url(),
                    additional_headers=self._load.caller.person,
                    open_timeout=5,
                    close_timeout=0.5,
                    ping_interval=5,
                    ping_timeout=10,
                    max_queue=1 if self._manner == "slow" else 256,
                    proxy=None,
                    compression=None,
                ) as connection:
                    await self._sit(connection)
            await asyncio.sleep(self._random.uniform(0.1, 0.5))

    def _url(self) -> str:
        pushers = self._load.room.pushers
        self._turn += 1
        address = pushers[self._turn % len(pushers)].replace("http", "ws", 1)
        wishes = [] if self._last is None else [f"after={self._last}"]
        if self.heard.everything:
            wishes.append("events=all")
        return f"{address}/ws/chat/{self.heard.thread}?{'&'.join(wishes)}"

    async def _sit(self, connection: ClientConnection) -> None:
        async with asyncio.timeout(10):
            welcome = json.loads(await connection.recv())
        if welcome["type"] != "connected":
            self._load.odd.append(f"the first frame was {welcome}")
        sitting = Sitting(self._last, now())
        self.heard.sittings.append(sitting)
        leaves = now() + self._random.uniform(2, 6) if self._manner == "flapping" else float("inf")
        while now() < leaves or self._load.resting.is_set():
            try:
                async with asyncio.timeout(min(leaves - now(), 3600) if not self._load.resting.is_set() else 3600):
                    text = await connection.recv()
            except TimeoutError:
                continue
            self._take(sitting, json.loads(text))
            if self._manner == "slow" and not self._load.resting.is_set():
                await asyncio.sleep(self._random.uniform(0, 0.1))

    def _take(self, sitting: Sitting, frame: dict[str, Any]) -> None:
        thread = frame.get("thread_id", self.heard.thread)
        match frame["type"]:
            case "new_message":
                got = Frame("new_message", frame["seq"], thread, frame["message_id"])
            case "turn" | "delta" | "presence" if self.heard.everything:
                # News of what the agent does and of who is here; it has no number, and may be lost.
                self._load.news |= set(frame.get("in_reply_to", ()))
                return
            case "fate":
                # An answer comes right before its reply, which has the number; a failure has one of its own.
                kind, number = ("fate", frame["number"]) if "number" in frame else (ANSWERED, frame["reply_seq"])
                got = Frame(kind, number, thread, frame["message_id"])
            case "reset":
                got = Frame("reset", 0, thread)
            case _:
                self._load.odd.append(f"{self.heard.name} was told {frame}")
                return
        sitting.frames.append(got)
        if got.kind != ANSWERED:
            self._last = max(self._last or 0, got.number)
