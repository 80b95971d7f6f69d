"""Who may open a socket, as whom it speaks, what it may do, and when that ends."""

import asyncio
import gc
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from functools import partial
from typing import Any, get_args
from uuid import UUID

import jwt
import pytest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus

from m3.access.access import Access
from m3.access.principals import Kind
from m3.access.rules import SOCKET, Action, Standing, finds, may
from m3.access.tokens import ROOM
from m3.bus import Bus
from m3.errors import NotSignedIn
from m3.events import ReplyGrew, TurnStarted
from m3.store import Store, migrate, open_store
from m3.store.postgres import _tenant as whom_it_speaks_for
from services.pusher.frames import SocketFrame
from services.recorder import recorder
from tests.support.client import Socket, socket
from tests.support.clock import Clock
from tests.support.counting import Since
from tests.support.database import private_database
from tests.support.pushing import announce, record, running_pusher, think
from tests.support.town import KEYS, Town, asking, bearer
from tests.support.until import until

#: Seconds between looks at who may still read, where a test waits for one.
SOON = 0.05
#: What a socket sends, by the type of the rule: as who has it would, and as somebody else.
FRAMES: dict[str, str] = {
    "ping": "ping",
    "message": '{"type": "message", "message": "hi"}',
    "messages": '{"type": "messages", "messages": [{"message": "hi"}]}',
    "typing": '{"type": "typing"}',
    "cancel": '{"type": "cancel"}',
}


@asynccontextmanager
async def asking_pusher(bus: Bus, store: Store, **changes: Any) -> AsyncIterator[str]:
    """The address of a pusher that asks who somebody is, with a recorder behind it."""
    ways = {name: changes.pop(name) for name in ("recheck", "clock") if name in changes}
    settings = asking(**changes)
    changed = {name: getattr(settings, name) for name in settings.model_fields_set}
    async with recorder(bus, store, grace=1), running_pusher(bus, store, **ways, **changed) as (address, _):
        yield address


def shown(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


@asynccontextmanager
async def opened(address: str, thread_id: str, credential: str, **query: str | int) -> AsyncIterator[Socket]:
    """A socket that was welcomed."""
    async with socket(address, thread_id, shown(credential), **query) as listener:
        await listener.next("connected")
        yield listener


async def answer(listener: Socket, frame: str) -> dict[str, Any]:
    """What comes for it: where it is taken without an answer, that of the ping behind it."""
    await listener.send(frame)
    if "typing" in frame:
        await listener.send("ping")
    while True:
        told = await listener.next()
        if told["type"] in {"pong", "recorded", "cancelling", "error"}:
            return told


async def refusal(address: str, thread_id: str, headers: Any = None, **query: str | int) -> tuple[int, str, str]:
    """The status, the code and the sentence with which a socket is refused."""
    with pytest.raises(InvalidStatus) as refused:
        async with socket(address, thread_id, headers, **query):
            pass
    response = refused.value.response
    body = json.loads(response.body or b"")
    return response.status_code, body["code"], body["message"]


async def ticket_of(store: Store, credential: str, **changes: Any) -> str:
    """A ticket of whoever has the credential."""
    async with Access.open(asking(), store) as access:
        return await access.ticket_for(replace(await access.identify(bearer(credential)), **changes))


# ---- Every action of every kind of principal


def test_every_frame_that_a_socket_may_send_has_a_rule() -> None:
    assert set(SOCKET) == {"open", "ping", *get_args(SocketFrame.model_fields["type"].annotation)}
    assert set(FRAMES) == set(SOCKET) - {"open"}


STANDINGS: list[tuple[Kind, Standing | None]] = [
    *(("person", standing) for standing in (None, *get_args(Standing.__args__[0]), "guest")),
    *(("operator", standing) for standing in (None, "member", "reader", "guest")),
    *(("program", standing) for standing in (None, "member", "reader", "feeder")),
]


async def test_each_action_of_a_socket_is_taken_of_whom_the_rules_let_and_of_nobody_else(
    memory_bus: Bus, store: Store, town: Town
) -> None:
    async with asking_pusher(memory_bus, store) as address:
        for number, (kind, standing) in enumerate(STANDINGS):
            name, thread_id = f"somebody-{number}", f"thread-{number}"
            if kind == "program":
                credential = await town.program(name)
            else:
                credential = await town.person(name, operator=kind == "operator")
            role = {name: standing} if standing not in {None, "guest"} else {}
            await town.thread(thread_id, "open" if standing == "guest" else "private", **role)
            if not may(kind, Action.READ, standing):
                expected = (403, "forbidden") if finds(kind, standing) else (404, "not_found")
                assert (await refusal(address, thread_id, shown(credential)))[:2] == expected, (kind, standing)
                continue
            async with opened(address, thread_id, credential) as listener:
                for frame, actions in SOCKET.items():
                    if frame == "open":
                        continue
                    told = await answer(listener, FRAMES[frame])
                    allowed = any(may(kind, action, standing) for action in actions)
                    assert told.get("code") == (None if allowed else "forbidden"), (kind, standing, frame)


async def test_in_an_open_room_anybody_does_everything_and_no_credential_is_looked_at(
    memory_bus: Bus, store: Store
) -> None:
    async with (
        recorder(memory_bus, store, grace=1),
        running_pusher(memory_bus, store) as (address, _),
        socket(address, "t", shown("nonsense"), ticket="nonsense") as listener,
    ):
        await listener.next("connected")
        for frame in FRAMES.values():
            assert (await answer(listener, frame))["type"] != "error"
        assert (await listener.say("as a program", "api"))["type"] == "recorded"
        assert "author" not in listener.frames[-2]


# ---- Refused before it is accepted


def forged(algorithm: str, key: Any, **claims: object) -> str:
    now = int(time.time())
    told = {"iss": ROOM, "aud": ROOM, "sub": str(UUID(int=1)), "tenant": "default", "sid": str(UUID(int=2))}
    times = {"iat": now, "nbf": now, "exp": now + 60}
    return jwt.encode(told | times | claims, key, algorithm, headers={"kid": "first"})


SECRET = bytes.fromhex(KEYS.removeprefix("first:"))
BAD_HEADERS: dict[str, Callable[[], list[tuple[str, str]]]] = {
    "none": list,
    "of another kind": lambda: [("Authorization", "Basic bWVpOm1laQ==")],
    "empty": lambda: [("Authorization", "")],
    "no token": lambda: [("Authorization", "Bearer nonsense")],
    "alg=none": lambda: [("Authorization", f"Bearer {forged('none', None)}")],
    "signed by another key": lambda: [("Authorization", f"Bearer {forged('HS256', b'x' * 32)}")],
    "expired": lambda: [("Authorization", f"Bearer {forged('HS256', SECRET, exp=int(time.time()) - 60)}")],
    "of nobody": lambda: [("Authorization", f"Bearer {forged('HS256', SECRET)}")],
    "a key that is none": lambda: [("Authorization", f"Bearer m3k_abcdefgh_{'x' * 43}")],
}


@pytest.mark.parametrize("headers", BAD_HEADERS.values(), ids=BAD_HEADERS)
async def test_without_a_good_credential_no_socket_is_opened(
    memory_bus: Bus, store: Store, town: Town, headers: Callable[[], list[tuple[str, str]]]
) -> None:
    await town.thread("show", "open")
    async with asking_pusher(memory_bus, store) as address:
        with pytest.raises(InvalidStatus) as refused:
            async with socket(address, "show", headers()):
                pass
        response = refused.value.response
        assert (response.status_code, json.loads(response.body or b"")["code"]) == (401, "not_signed_in")
        assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_two_credentials_are_none(memory_bus: Bus, store: Store, town: Town) -> None:
    mei = await town.person("mei")
    await town.thread("show", mei="owner")
    ticket = await ticket_of(store, mei)
    async with asking_pusher(memory_bus, store) as address:
        twice = Headers([("Authorization", f"Bearer {mei}"), ("Authorization", f"Bearer {mei}")])
        assert (await refusal(address, "show", twice))[:2] == (401, "not_signed_in")
        assert (await refusal(address, "show", shown(mei), ticket=ticket))[:2] == (422, "invalid_request")
        assert (await refusal(address, f"show?ticket={ticket}&ticket={ticket}"))[:2] == (422, "invalid_request")
        async with socket(address, "show", ticket=ticket) as listener:  # which was used up by none of it
            await listener.next("connected")


async def test_a_ticket_opens_one_socket_and_no_second(memory_bus: Bus, store: Store, town: Town) -> None:
    mei = await town.person("mei")
    await town.thread("show", mei="owner")
    ticket = await ticket_of(store, mei)
    async with asking_pusher(memory_bus, store) as address:
        async with socket(address, "show", ticket=ticket) as listener:
            await listener.next("connected")
            assert (await refusal(address, "show", ticket=ticket))[:2] == (401, "not_signed_in")
        assert (await refusal(address, "show", ticket=ticket))[:2] == (401, "not_signed_in")


async def test_what_is_refused_for_something_else_uses_no_ticket_up(memory_bus: Bus, store: Store, town: Town) -> None:
    mei = await town.person("mei")
    await town.thread("show", mei="owner")
    ticket = await ticket_of(store, mei)
    async with asking_pusher(memory_bus, store) as address:
        evil = {"Origin": "https://evil.example"}
        assert (await refusal(address, "show", evil, ticket=ticket))[:2] == (403, "foreign_origin")
        assert (await refusal(address, "show", ticket=ticket, after="x"))[:2] == (422, "invalid_request")
        assert (await refusal(address, "acme.show", ticket=ticket))[:2] == (422, "invalid_request")
        assert (await refusal(address, "a/b", ticket=ticket))[:2] == (422, "invalid_request")
        async with socket(address, "show", ticket=ticket) as listener:
            await listener.next("connected")


async def test_a_ticket_is_good_for_a_while_only(memory_bus: Bus, store: Store, town: Town) -> None:
    mei = await town.person("mei")
    await town.thread("show", mei="owner")
    ticket = await ticket_of(store, mei)
    await town.sql.execute("UPDATE tickets SET expires_at = now() - interval '1 second'")
    async with asking_pusher(memory_bus, store) as address:
        assert (await refusal(address, "show", ticket=ticket))[:2] == (401, "not_signed_in")


async def test_a_foreign_thread_is_refused_as_one_that_is_not_there(memory_bus: Bus, store: Store, town: Town) -> None:
    mei, stranger, feed = await town.person("mei"), await town.person("ann", "acme"), await town.program("feed")
    await town.thread("show", mei="owner", feed="feeder")
    async with asking_pusher(memory_bus, store) as address:
        none = await refusal(address, "nowhere", shown(mei))
        assert none == (404, "not_found", "There is no such thread.")
        assert await refusal(address, "show", shown(await town.person("bob"))) == none
        assert await refusal(address, "show", shown(stranger)) == none  # in whose tenant there is none of the name
        assert await refusal(address, "show", ticket=await ticket_of(store, stranger)) == none
        assert (await refusal(address, "show", shown(feed)))[:2] == (403, "forbidden")  # it feeds, and does not read


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil.example",
        "http://127.0.0.1.evil.example",
        "http://evil.example:80#127.0.0.1",
        "http://127.0.0.1@evil.example",
        "http://app.example.com",  # of another scheme
        "https://app.example.com:444",
        "https://app.example.com.evil.example",
        "https://evilapp.example.com",
        "https://sub.app.example.com",
        "https://example.com",
    ],
)
async def test_no_credential_helps_a_page_of_another_host(
    memory_bus: Bus, store: Store, town: Town, origin: str
) -> None:
    mei = await town.person("mei")
    await town.thread("show", mei="owner")
    async with asking_pusher(memory_bus, store, origins="https://app.example.com") as address:
        headers = shown(mei) | {"Origin": origin}
        assert (await refusal(address, "show", headers))[:2] == (403, "foreign_origin")


@pytest.mark.parametrize("origin", [None, "https://app.example.com"])
async def test_the_rooms_own_pages_and_those_that_are_allowed_open_sockets(
    memory_bus: Bus, store: Store, town: Town, origin: str | None
) -> None:
    mei = await town.person("mei")
    await town.thread("show", mei="owner")
    async with (
        asking_pusher(memory_bus, store, origins="https://app.example.com") as address,
        socket(address, "show", shown(mei) | {"Origin": origin or address}) as listener,
    ):
        await listener.next("connected")


async def test_who_opens_sockets_too_often_is_told_when_to_come_again(
    memory_bus: Bus, store: Store, town: Town
) -> None:
    mei, ann = await town.person("mei"), await town.person("ann")
    await town.thread("show", "open")
    async with asking_pusher(memory_bus, store, limit_sockets="2/minute") as address:
        for _ in range(2):
            async with opened(address, "show", mei):
                pass
        with pytest.raises(InvalidStatus) as refused:
            async with opened(address, "show", mei):
                pass
        response = refused.value.response
        assert (response.status_code, json.loads(response.body or b"")["code"]) == (429, "rate_limited")
        assert 1 <= int(response.headers["Retry-After"]) <= 60
        async with opened(address, "show", ann):
            pass


async def test_a_client_that_goes_while_it_is_looked_at_harms_nobody(
    memory_bus: Bus, store: Store, town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    mei = await town.person("mei")
    await town.thread("show", mei="owner")
    async with asking_pusher(memory_bus, store) as address:
        await town.sql.execute("BEGIN; LOCK TABLE members, threads, sign_ins IN ACCESS EXCLUSIVE MODE")
        host, port = address.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"GET /ws/chat/show HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {mei}\r\n\r\n".encode()
        )
        await until(partial(waits_for_a_lock, town))
        writer.transport.abort()
        await town.sql.execute("COMMIT")
        async with opened(address, "show", mei) as listener:
            assert await listener.hears_nothing()
    assert not caplog.records


async def waits_for_a_lock(town: Town) -> bool:
    return bool(await town.sql.fetchval("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"))


async def test_an_open_socket_keeps_no_credential(memory_bus: Bus, store: Store, town: Town) -> None:
    mei = await town.person("mei")
    await town.thread("show", mei="owner")
    async with asking_pusher(memory_bus, store) as address:
        request = (
            "GET /ws/chat/show HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer "
        )
        reader, writer = await asyncio.open_connection(*address.removeprefix("http://").split(":"))
        with closing(writer):
            writer.write(f"{request}{mei}\r\n\r\n".encode())
            await asyncio.wait_for(reader.readuntil(b'"type":"connected"'), 10)
            gc.collect()
            objects = gc.get_objects()
            kept = (value for one in objects for value in gc.get_referents(one) if isinstance(value, str | bytes))
            assert not [value for value in kept if f"Bearer {mei}" in str(value)]


# ---- As whom it speaks


async def test_a_message_has_the_source_and_the_author_that_its_credential_says(
    memory_bus: Bus, store: Store, town: Town
) -> None:
    mei, feed = await town.person("mei"), await town.program("danmaku")
    await town.thread("show", mei="owner", danmaku="member")
    async with (
        asking_pusher(memory_bus, store) as address,
        opened(address, "show", mei, client="somebody else") as person,
        opened(address, "show", feed) as program,
        opened(address, "show", mei) as listener,
    ):
        for talker in (person, program):
            assert (await answer(talker, FRAMES["message"]))["type"] == "recorded"
        heard = [(one["source"], one["author"]) for one in await listener.messages(2)]
        assert heard == [("user", "mei"), ("api", "danmaku")]
        stored = [(message.source, message.author) for message in await store.latest("show", 10)]
        assert stored == heard


async def test_nobody_speaks_as_what_they_are_not_and_nothing_of_it_is_recorded(
    memory_bus: Bus, store: Store, town: Town
) -> None:
    since = Since()
    mei, feed = await town.person("mei"), await town.program("feed")
    await town.thread("show", mei="owner", feed="member")
    async with (
        asking_pusher(memory_bus, store) as address,
        opened(address, "show", mei) as person,
        opened(address, "show", feed) as program,
    ):
        for talker, source in ((person, "api"), (program, "user")):
            said = [{"message": "mine", "source": source, "client_id": "1"}, {"message": "hi", "client_id": "2"}]
            await talker.send(json.dumps({"type": "messages", "messages": said}))
            refused, taken = await talker.next("error"), await talker.next("recorded")
            assert (refused["code"], refused["client_id"]) == ("forbidden", "1")
            assert "producer key" in refused["message"]
            assert taken["client_id"] == "2"
            await talker.send(json.dumps({"type": "message"} | said[0]))
            assert (await talker.next("error"))["code"] == "forbidden"
        assert [message.content for message in await store.latest("show", 10)] == ["hi", "hi"]
        assert since.counted("m3_messages_total", lane="api", interface="websocket", outcome="forbidden") == 2


async def test_no_two_principals_share_the_keys_of_their_messages(memory_bus: Bus, store: Store, town: Town) -> None:
    mei, ann = await town.person("mei"), await town.person("ann")
    await town.thread("show", "open")
    async with (
        asking_pusher(memory_bus, store) as address,
        opened(address, "show", mei, client="app") as one,
        opened(address, "show", ann, client="app") as other,
        opened(address, "show", mei) as another,
    ):
        ids = [(await talker.say("hi", client_id="1"))["message_id"] for talker in (one, other, another)]
        assert len(set(ids)) == 3
        assert (await one.say("hi", client_id="1"))["message_id"] == ids[0]


async def test_others_know_somebody_by_their_own_name_whatever_they_call_themselves(
    memory_bus: Bus, store: Store, town: Town
) -> None:
    mei, ann = await town.person("mei"), await town.person("ann")
    await town.thread("show", "open")
    async with (
        asking_pusher(memory_bus, store) as address,
        opened(address, "show", mei, events="all") as watcher,
        opened(address, "show", ann, client="mei") as typist,
    ):
        await typist.send('{"type": "typing"}')
        while (frame := await watcher.next("presence"))["clients"] != ["ann", "mei"]:
            pass
        assert frame["connections"] == 2
        assert (await watcher.next("typing"))["clients"] == ["ann"]


async def test_names_in_any_script_are_known_on_every_pusher(memory_bus: Bus, store: Store, town: Town) -> None:
    mei, ann = await town.person("美" * 64), await town.person("ann")
    await town.thread("show", "open")
    async with (
        asking_pusher(memory_bus, store) as one,
        asking_pusher(memory_bus, store) as other,
        opened(one, "show", mei) as typist,
        opened(other, "show", ann, events="all") as watcher,
    ):
        while (await watcher.next("presence"))["clients"] != ["ann", "美" * 64]:
            pass
        await typist.send('{"type": "typing"}')
        assert (await watcher.next("typing"))["clients"] == ["美" * 64]


async def test_who_says_too_much_is_told_when_to_go_on_and_nothing_behind_it_is_taken(
    memory_bus: Bus, store: Store, town: Town
) -> None:
    mei, ann = await town.person("mei"), await town.person("ann")
    await town.thread("show", "open")
    async with (
        asking_pusher(memory_bus, store, limit_socket_messages="3/minute") as address,
        opened(address, "show", mei) as one,
        opened(address, "show", mei) as same,
        opened(address, "show", ann) as other,
    ):
        await one.say("1")
        said = [{"message": str(number), "client_id": str(number)} for number in range(2, 6)]
        await one.send(json.dumps({"type": "messages", "messages": said}))
        told = [await one.next("recorded") for _ in range(2)] + [await one.next("error") for _ in range(2)]
        assert [frame.get("client_id") for frame in told] == ["2", "3", "4", "5"]
        assert [frame.get("code") for frame in told] == [None, None, "rate_limited", "rate_limited"]
        assert 1 <= told[-1]["retry_after"] <= 60
        assert (await answer(same, FRAMES["message"]))["code"] == "rate_limited"
        await other.say("hi")
        assert [message.content for message in await store.latest("show", 10)] == ["1", "2", "3", "hi"]


# ---- When that ends


async def test_a_member_who_was_made_a_reader_listens_on_and_says_nothing_more(
    memory_bus: Bus, store: Store, town: Town
) -> None:
    mei, clock = await town.person("mei"), Clock(time.monotonic())
    await town.thread("show", mei="member")
    async with (
        asking_pusher(memory_bus, store, recheck=SOON, clock=clock) as address,
        opened(address, "show", mei) as talker,
    ):
        await talker.say("hi")
        await town.sql.execute("UPDATE members SET role = 'reader'")
        clock.now += 60
        for frame in ("message", "messages", "cancel"):
            assert (await answer(talker, FRAMES[frame]))["code"] == "forbidden"
        assert (await answer(talker, FRAMES["typing"]))["type"] == "pong"
        assert len(await store.latest("show", 10)) == 1


async def test_who_may_not_read_any_more_does_nothing_more_though_the_socket_is_not_closed_yet(
    memory_bus: Bus, store: Store, town: Town
) -> None:
    mei, clock = await town.person("mei"), Clock(time.monotonic())
    await town.thread("show", mei="member")
    async with asking_pusher(memory_bus, store, clock=clock) as address, opened(address, "show", mei) as talker:
        await town.sql.execute("DELETE FROM members")
        clock.now += 60
        for frame in ("message", "messages", "cancel", "typing"):
            assert (await answer(talker, FRAMES[frame]))["code"] == "not_found"


REVOCATIONS = {
    "a membership": "DELETE FROM members WHERE principal_id IN (SELECT account_id FROM accounts WHERE name = 'mei')",
    "an account": "UPDATE accounts SET revoked_at = now() WHERE name = 'mei'",
    "a sign-in": "UPDATE sign_ins SET revoked_at = now() WHERE account_id IN"
    " (SELECT account_id FROM accounts WHERE name = 'mei')",
    "a key": "UPDATE producer_keys SET revoked_at = now() WHERE name = 'feed'",
    "a program's membership": "DELETE FROM members WHERE principal_id IN (SELECT key_id FROM producer_keys)",
    "a thread": "DELETE FROM threads WHERE thread_id = 'show'",
}


@pytest.mark.parametrize("revocation", REVOCATIONS.values(), ids=REVOCATIONS)
async def test_sockets_of_who_may_not_read_any_more_are_closed_and_no_others(
    memory_bus: Bus, store: Store, town: Town, revocation: str
) -> None:
    since = Since()
    mei, ann, feed = await town.person("mei"), await town.person("ann"), await town.program("feed")
    await town.thread("show", mei="member", feed="member")
    await town.thread("plaza", mei="member", ann="member", feed="member")
    async with (
        asking_pusher(memory_bus, store, recheck=SOON) as address,
        opened(address, "show", feed if "key" in revocation else mei) as one,
        opened(address, "show", feed if "key" in revocation else mei) as other,
        opened(address, "plaza", ann) as stays,
    ):
        await town.sql.execute(revocation)
        assert (await one.closed(), await other.closed()) == (4500, 4500)
        assert await stays.hears_nothing()
        await until(lambda: since.counted("m3_socket_closes_total", reason="no_longer_allowed") == 2)


async def test_a_guest_leaves_with_the_openness_of_the_thread_and_a_member_stays(
    memory_bus: Bus, store: Store, town: Town
) -> None:
    mei, guest = await town.person("mei"), await town.person("guest")
    await town.thread("show", "open", mei="member")
    async with (
        asking_pusher(memory_bus, store, recheck=SOON) as address,
        opened(address, "show", mei) as member,
        opened(address, "show", guest) as stranger,
    ):
        await town.sql.execute("UPDATE threads SET visibility = 'private'")
        assert await stranger.closed() == 4500
        assert await member.hears_nothing()


async def test_a_socket_ends_with_its_credential_where_that_cannot_be_renewed(
    memory_bus: Bus, store: Store, town: Town
) -> None:
    mei = await town.person("mei")
    await town.thread("show", mei="member")
    ticket = await ticket_of(store, mei, expires=time.time() + 1)
    async with (
        asking_pusher(memory_bus, store) as address,
        opened(address, "show", mei) as renewable,
        socket(address, "show", ticket=ticket) as listener,
    ):
        await listener.next("connected")
        assert await listener.closed() == 4501
        assert await renewable.hears_nothing()
        async with Access.open(asking(), store) as access:
            with pytest.raises(NotSignedIn):
                await access.redeem(ticket)


async def test_while_the_database_is_away_sockets_stay_and_are_looked_at_when_it_is_back(memory_bus: Bus) -> None:
    async with private_database() as database:
        await migrate(database.url)
        async with open_store(database.url, pool_size=2, command_timeout=0.5) as store, AsyncExitStack() as stack:
            town = await stack.enter_async_context(Town.of(database.url))
            mei = await town.person("mei")
            await town.thread("show", mei="member")
            address = await stack.enter_async_context(asking_pusher(memory_bus, store, recheck=SOON))
            listener = await stack.enter_async_context(opened(address, "show", mei))
            since = Since()
            database.freeze(frozen=True)
            await until(lambda: since.counted("m3_database_failures_total") >= 2)
            assert await listener.hears_nothing()
            stranger = shown(f"m3k_abcdefgh_{'x' * 43}")
            assert (await refusal(address, "show", stranger))[:2] == (503, "database_unavailable")
            database.freeze(frozen=False)
            await town.sql.execute("DELETE FROM members")
            assert await listener.closed() == 4500


# ---- Tenants


async def test_sockets_of_two_tenants_in_threads_of_the_same_name_know_nothing_of_each_other(
    memory_bus: Bus, store: Store, town: Town
) -> None:
    tenants = {"default": "show", "acme": "acme.show"}
    for tenant, key in tenants.items():
        await town.person("mei", tenant)
        await town.thread(key, mei="owner")
    async with asking_pusher(memory_bus, store) as address, AsyncExitStack() as stack:
        watchers = {}
        for tenant in tenants:
            account = await town.sql.fetchval("SELECT account_id FROM accounts WHERE tenant = $1", tenant)
            token = await town.signed_in(account, tenant)
            watchers[tenant] = await stack.enter_async_context(socket(address, "show", shown(token), events="all"))
        for watcher in watchers.values():
            assert (await watcher.next("connected"))["connections"] == 1
            assert (await watcher.next("presence"))["connections"] == 1
        for tenant, key in tenants.items():
            news = {"thread_id": key, "turn_id": UUID(int=1), "reply_id": UUID(int=2)}
            await think(memory_bus, TurnStarted.model_validate(news | {"in_reply_to": (UUID(int=3),)}))
            await think(memory_bus, ReplyGrew.model_validate(news | {"index": 0, "text": f"thought in {tenant}"}))
            await watchers[tenant].say(f"said in {tenant}", client_id="1")
            await watchers[tenant].send('{"type": "typing"}')
            await watchers[tenant].next("typing")
            await watchers[tenant].send('{"type": "cancel"}')
            await watchers[tenant].next("cancelling")
        for tenant, watcher in watchers.items():
            assert await watcher.hears_nothing()
            told = json.dumps(watcher.frames)
            other = next(name for name in tenants if name != tenant)
            assert f"said in {tenant}" in told
            assert f"thought in {tenant}" in told
            assert f"in {other}" not in told
            assert "acme." not in told
            assert {frame.get("connections", 1) for frame in watcher.frames} == {1}
            assert {frame["thread_id"] for frame in watcher.frames if "thread_id" in frame} == {"show"}
            assert sum(frame["type"] == "typing" for frame in watcher.frames) == 1
        assert [message.content for message in await store.latest("show", 10)] == ["said in default"]
        assert [message.content for message in await store.latest("acme.show", 10)] == ["said in acme"]


async def test_what_sockets_of_two_tenants_catch_up_with_at_once_is_each_their_own_threads(
    memory_bus: Bus, store: Store, town: Town
) -> None:
    tenants = {"default": "show", "acme": "acme.show"}
    tokens = {tenant: await town.person("mei", tenant) for tenant in tenants}
    for tenant, key in tenants.items():
        await town.thread(key, mei="owner")
        await record(store, *(f"{tenant} {number}" for number in range(300)), thread_id=key)

    async def catch_up(address: str, tenant: str) -> None:
        async with opened(address, "show", tokens[tenant], after=0) as listener:
            heard = [frame["content"] for frame in await listener.messages(300)]
            assert heard == [f"{tenant} {number}" for number in range(300)]
            assert await listener.hears_nothing()

    async with asking_pusher(memory_bus, store) as address:
        await asyncio.gather(*(catch_up(address, tenant) for tenant in [*tenants] * 5))


async def test_what_is_read_for_sockets_is_read_for_the_tenant_of_its_thread_or_by_the_pusher_itself(
    memory_bus: Bus, store: Store, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What several sockets share must not depend on whose socket asked first, nor on who asked in another thread."""
    read_for: dict[str, set[str | None]] = defaultdict(set)

    def noting(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def note(key: str, *arguments: Any, **named: Any) -> Any:
            read_for[key].add(whom_it_speaks_for.get())
            return await method(key, *arguments, **named)

        return note

    for method in ("head", "events_after", "waiting_count"):
        monkeypatch.setattr(store, method, noting(getattr(store, method)))
    keys = {"default": "show", "acme": "acme.show"}
    async with asking_pusher(memory_bus, store) as address, AsyncExitStack() as stack:
        for tenant, key in keys.items():
            mei, feed = await town.person("mei", tenant), await town.program("feed", tenant)
            await town.thread(key, mei="owner", feed="member")
            await record(store, "one", thread_id=key)
            late = await stack.enter_async_context(opened(address, "show", mei, after=0))
            program = await stack.enter_async_context(opened(address, "show", feed))
            await late.messages(1)
            await program.send(FRAMES["message"])
            await late.messages(1)
            assert read_for[key] == {tenant}
            _lost, heard = await record(store, "lost", "heard", thread_id=key)
            await announce(memory_bus, heard)
            await late.messages(2)
            assert read_for[key] == {tenant, None}
