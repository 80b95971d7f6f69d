"""Turning sealing on for a room that was plain, rotating its keys, and finding what was tampered with."""

import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from m3 import upkeep
from m3.errors import StartError
from m3.events import MessageAccepted, ThreadSummarised
from m3.store import Store
from m3.upkeep import Say
from tests.support.processes import Process
from tests.support.sealed import NEW, OLD, dumped, execute, store_with

SECRET = "zanzibar"
KEYS = f"first:{'1' * 64}"


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "PAGE", 3)


async def say(store: Store, *texts: str, thread_id: str = "t") -> list[MessageAccepted]:
    """Into the table, as a recorder does with what ``store``'s process accepted."""
    said = [
        MessageAccepted(thread_id=thread_id, source="user", content=text, interface="http_api", origin="nobody")
        for text in texts
    ]
    await store.record(await store.content.sealed(said))
    return said


async def sum_up(store: Store, text: str, thread_id: str = "t", until: int = 1) -> None:
    summary = ThreadSummarised(thread_id=thread_id, until=until, text=text)
    await store.record(await store.content.sealed([summary]))


async def told(work: Callable[[Store, Say], Awaitable[bool]], store: Store) -> tuple[bool, list[str]]:
    lines: list[str] = []
    return await work(store, lines.append), lines


async def contents(store: Store, thread_id: str = "t") -> list[str]:
    return [message.content for message in await store.latest(thread_id, 100)]


# ---- Turning it on


async def test_what_was_said_before_stays_readable_and_is_sealed_when_it_is_asked_for(
    store: Store, database_url: str
) -> None:
    texts = [f"{SECRET} {number}" for number in range(7)]
    await say(store, *texts)
    await say(store, *texts, thread_id="acme.t")
    await sum_up(store, f"{SECRET}, in short")
    async with store_with(database_url, OLD) as sealing:
        assert await contents(sealing) == texts
        await say(sealing, "new")
        assert await contents(sealing) == [*texts, "new"]
        assert [message.content for message in await sealing.found("t", SECRET, 10)] == texts[::-1]
        assert (await told(upkeep.verify, sealing))[0] is False
        assert await told(upkeep.seal, sealing) == (True, ["14 messages and 1 summaries were sealed."])
        assert SECRET not in await dumped(database_url)
        for process in (sealing, another(sealing)):
            assert await contents(process) == [*texts, "new"]
            assert [message.content for message in await process.found("t", SECRET, 10)] == texts[::-1]
            assert await process.summary("t") == f"{SECRET}, in short"
        assert await told(upkeep.seal, sealing) == (True, ["0 messages and 0 summaries were sealed."])
        assert await told(upkeep.verify, sealing) == (
            True,
            ["15 messages were read; 0 things do not open, and 0 are plain."],
        )
    assert await store.found("t", SECRET, 10) == []


def another(store: Store) -> Store:
    """Another process with the same keys."""
    return Store(store._pool, store._url, masters=store.content.masters)


async def test_sealing_asks_for_a_key_to_seal_with(store: Store, database_url: str) -> None:
    await say(store, "plain")
    async with store_with(database_url, "off", OLD) as reading:
        for work in (upkeep.seal, upkeep.rotate):
            with pytest.raises(StartError, match="Set CONTENT_KEYS"):
                await told(work, reading)


async def test_old_messages_can_be_found_once_they_were_indexed(store: Store, database_url: str) -> None:
    async with store_with(database_url, OLD) as sealing:
        await say(store, "plain words", "你好吗")
        await say(sealing, "sealed words")
        await execute(database_url, "TRUNCATE search_terms")  # as if they were from before there was a search
        assert await sealing.found("t", "words", 10) == []
        assert await told(upkeep.index, sealing) == (
            True,
            ["3 messages can be found now that could not before; 0 cannot be read."],
        )
        assert [message.content for message in await sealing.found("t", "words", 10)] == ["sealed words", "plain words"]
        assert [message.content for message in await sealing.found("t", "好吗", 10)] == ["你好吗"]
        assert await told(upkeep.index, sealing) == (
            True,
            ["0 messages can be found now that could not before; 0 cannot be read."],
        )


# ---- Rotating


async def test_rotating_wraps_every_threads_key_anew_and_goes_on_where_it_broke_off(
    store: Store, database_url: str
) -> None:
    async with store_with(database_url, OLD) as before:
        for number in range(7):
            await say(before, SECRET, thread_id=f"t{number}")
    async with store_with(database_url, NEW, OLD) as rotating:
        key = (await rotating.thread_keys(["t0"]))["t0"]
        wrapped = rotating.content.masters.rewrap("t0", key).wrapped
        await execute(
            database_url, "UPDATE thread_keys SET master = 'new', wrapped = $1 WHERE thread_id = 't0'", wrapped
        )
        assert await told(upkeep.rotate, rotating) == (
            True,
            ["6 threads' keys were wrapped with the key new; 0 do not open."],
        )
        assert (await told(upkeep.rotate, rotating))[1] == [
            "0 threads' keys were wrapped with the key new; 0 do not open."
        ]
    async with store_with(database_url, NEW) as after:
        await upkeep.check(after)
        assert await contents(after, "t3") == [SECRET]
    async with store_with(database_url, OLD) as former:
        with pytest.raises(StartError):
            await upkeep.check(former)


async def test_a_key_that_does_not_open_is_told_and_left_and_stops_no_other(store: Store, database_url: str) -> None:
    async with store_with(database_url, OLD) as before:
        for number in range(3):
            await say(before, SECRET, thread_id=f"t{number}")
    await execute(database_url, "UPDATE thread_keys SET wrapped = set_byte(wrapped, 20, 0) WHERE thread_id = 't1'")
    async with store_with(database_url, NEW, OLD) as rotating:
        await upkeep.check(rotating)  # one key that was changed keeps no room from starting
        well, lines = await told(upkeep.rotate, rotating)
        assert not well
        assert lines[0].startswith("The key of the thread t1 does not open: ")
        assert lines[1] == "2 threads' keys were wrapped with the key new; 1 do not open."


# ---- Tampering

SWAP = """
    UPDATE dialogue AS d SET content = other.content FROM dialogue AS other
    WHERE d.seq IN (1, 2) AND other.thread_id = d.thread_id AND other.seq = 3 - d.seq AND d.thread_id = 't'
"""
ANOTHER_THREAD = """
    UPDATE dialogue SET thread_id = 'u', seq = seq + 100, rev = rev + 100 WHERE thread_id = 't' AND seq = 1
"""
ANOTHER_KEY = "UPDATE thread_keys SET wrapped = o.wrapped FROM thread_keys AS o WHERE thread_keys.thread_id = 't' AND o.thread_id = 'u'"


@pytest.mark.parametrize(
    ("tampering", "found"),
    [
        pytest.param("UPDATE dialogue SET content = 'forged' WHERE thread_id = 't' AND seq = 2", ["t 2"], id="content"),
        pytest.param(
            "UPDATE dialogue SET content = overlay(content PLACING 'AAAA' FROM 30) WHERE thread_id = 't' AND seq = 2",
            ["t 2"],
            id="bytes",
        ),
        pytest.param(
            "UPDATE dialogue SET content = left(content, -4) WHERE thread_id = 't' AND seq = 2", ["t 2"], id="cut"
        ),
        pytest.param(SWAP, ["t 1", "t 2"], id="swapped"),
        pytest.param(ANOTHER_THREAD, ["u 101"], id="another-thread"),
        pytest.param(
            "UPDATE dialogue SET message_id = gen_random_uuid() WHERE thread_id = 't' AND seq = 1", ["t 1"], id="id"
        ),
        pytest.param(ANOTHER_KEY, ["t 1", "t 2", "t 3", "the key of t"], id="another-key"),
        pytest.param("DELETE FROM thread_keys WHERE thread_id = 't'", ["t 1", "t 2", "t 3"], id="key-gone"),
        pytest.param("UPDATE threads SET summary_until = 9 WHERE thread_id = 'u'", ["the summary of u"], id="summary"),
    ],
)
async def test_what_was_tampered_with_is_found(
    store: Store, database_url: str, tampering: str, found: list[str]
) -> None:
    async with store_with(database_url, OLD) as sealing:
        for thread_id in "tu":
            await say(sealing, "one", "two", "three", thread_id=thread_id)
        await sum_up(sealing, "summary", "u")
        assert (await told(upkeep.verify, sealing))[0] is True
        await execute(database_url, tampering)
        async with store_with(database_url, OLD) as looking:  # with no key at hand from before
            well, (*findings, verdict) = await told(upkeep.verify, looking)
        assert not well
        assert "and 0 are plain" in verdict
        expected = []
        for what in found:
            match what.split():
                case "the", kind, "of", thread_id:
                    expected.append(f"The {kind} of the thread {thread_id} does not open")
                case thread_id, seq:
                    (message,) = await sealing.following(thread_id, int(seq) - 1, 1)
                    expected.append(f"The message {message.message_id} of the thread {thread_id} does not open")
        assert len(findings) == len(expected)
        assert all(any(line.startswith(one) for line in findings) for one in expected)


async def test_a_plain_row_in_a_sealed_room_is_counted(store: Store, database_url: str) -> None:
    async with store_with(database_url, OLD) as sealing:
        await say(sealing, "one", "two")
        await execute(database_url, "UPDATE dialogue SET content = 'forged', sealed = false WHERE seq = 1")
        assert await told(upkeep.verify, sealing) == (
            False,
            ["2 messages were read; 0 things do not open, and 1 are plain."],
        )


# ---- On the command line


def test_the_commands_see_to_the_rooms_own_database(tmp_path: Path, start: Callable[..., Process]) -> None:
    """Without a server or a running room: they bring the database up themselves. ``start`` opens its folder to it."""

    def run(command: str, keys: str = "") -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "m3", "content", command],
            env={"DATA_DIR": str(tmp_path / "data"), "CONTENT_KEYS": keys, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    assert run("verify") == (0, "0 messages were read; 0 things do not open, and 0 are plain.\n")
    assert run("seal") == (
        1,
        "m3: Set CONTENT_KEYS=name:64 hex digits, the key to seal with first.\n",
    )
    assert run("seal", KEYS) == (0, "0 messages and 0 summaries were sealed.\n")
    assert run("rotate", KEYS) == (0, "0 threads' keys were wrapped with the key first; 0 do not open.\n")
    assert run("index", KEYS)[0] == 0
    code, line = run("rotate", "first:123")
    assert (code, line.partition(": the key")[0]) == (1, "m3: CONTENT_KEYS")
