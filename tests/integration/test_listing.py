"""The threads that somebody finds, and where there is news."""

from uuid import UUID

from m3.bus import Bus
from m3.events import MessageAccepted, MessagesPassedOver
from m3.store import Store
from tests.support.gateway import reply_to, running_gateway
from tests.support.town import Town, asking, bearer_header


async def say(store: Store, key: str, content: str = "hello") -> UUID:
    said = MessageAccepted(thread_id=key, source="user", content=content, interface="http_api", origin="nobody")
    await store.record([said])
    return said.message_id


async def pass_over(store: Store, key: str, message_id: UUID) -> None:
    await store.record(
        [MessagesPassedOver(thread_id=key, message_ids=(message_id,), fate="ignored", reason="Why.", origin="nobody")]
    )


async def test_an_open_room_lists_its_threads_to_everybody_a_page_at_a_time(memory_bus: Bus, store: Store) -> None:
    for key in ("b", "a", "acme.c", "d"):
        await say(store, key)
    async with running_gateway(memory_bus, store) as http:
        threads = (await http.get("/api/threads")).json()["threads"]
        page = (await http.get("/api/threads", params={"after": "a", "limit": 1})).json()["threads"]
    assert [thread["thread_id"] for thread in threads] == ["a", "b", "d"]
    assert [thread["thread_id"] for thread in page] == ["b"]
    assert {thread["role"] for thread in threads} == {None}


async def test_a_person_finds_their_own_threads_and_open_ones_in_one_order_each_once_a_page_at_a_time(
    memory_bus: Bus, store: Store, town: Town
) -> None:
    ann = await town.person("ann")
    for number in range(9):
        mine = {"ann": "member"} if number % 3 < 2 else {}
        await town.thread(f"t{number}", "open" if number % 3 else "private", **mine)
    await town.thread("acme.t1", "open")
    async with running_gateway(memory_bus, store, **asking().model_dump(exclude_unset=True)) as http:
        found: list[str] = []
        for _ in range(5):
            after = found[-1] if found else "0"
            answer = await http.get("/api/threads", params={"after": after, "limit": 2}, headers=bearer_header(ann))
            found += [thread["thread_id"] for thread in answer.json()["threads"]]
    assert found == [f"t{number}" for number in range(9)]


async def test_a_thread_is_listed_with_its_last_number_and_when_its_newest_message_was_said(
    memory_bus: Bus, store: Store, town: Town
) -> None:
    first = await say(store, "show")
    await pass_over(store, "show", first)
    (message,) = await store.latest("show", 1)
    async with running_gateway(memory_bus, store) as http:
        (thread,) = (await http.get("/api/threads")).json()["threads"]
        assert (thread["head"], thread["last_at"]) == (2, message.timestamp.isoformat().replace("+00:00", "Z"))
        await store.record([reply_to(message)])
        (thread,) = (await http.get("/api/threads")).json()["threads"]
        _, reply = await store.latest("show", 2)
        assert (thread["head"], thread["last_at"]) == (3, reply.timestamp.isoformat().replace("+00:00", "Z"))
        await town.thread("show-2")
        assert [thread["last_at"] for thread in (await http.get("/api/threads")).json()["threads"]][1] is None


async def test_so_it_is_where_people_sign_in_and_a_program_that_does_not_read_is_told_neither(
    memory_bus: Bus, store: Store, town: Town
) -> None:
    ann, root = await town.person("ann"), await town.person("root", operator=True)
    feed, watch = await town.program("feed"), await town.program("watch")
    await town.thread("show", "open", feed="feeder", watch="reader")
    await say(store, "show")
    async with running_gateway(memory_bus, store, **asking().model_dump(exclude_unset=True)) as http:
        for credential in (ann, root, watch):
            (thread,) = (await http.get("/api/threads", headers=bearer_header(credential))).json()["threads"]
            assert thread["head"] == 1
            assert thread["last_at"] is not None
        (thread,) = (await http.get("/api/threads", headers=bearer_header(feed))).json()["threads"]
        assert (thread["role"], thread["head"], thread["last_at"]) == ("feeder", None, None)
