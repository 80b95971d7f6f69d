"""Passwords and their hashes."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from m3.access import passwords as module
from m3.access.passwords import PLACES, WAITING, Passwords, one_time_password, suitable
from m3.errors import TooManySignIns, Unsuitable


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    with Passwords.open() as passwords:
        yield passwords


async def test_a_password_fits_its_hash_and_no_other(passwords: Passwords) -> None:
    hashed = await passwords.hash("correct horse")
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert await passwords.fits("correct horse", hashed)
    assert not await passwords.fits("wrong horse", hashed)
    assert not await passwords.fits("", hashed)
    assert hashed != await passwords.hash("correct horse")


async def test_no_password_fits_where_there_is_none(passwords: Passwords) -> None:
    for hashed in (None, "", "no hash"):
        assert not await passwords.fits("correct horse", hashed)


async def test_the_same_characters_are_the_same_password(passwords: Passwords) -> None:
    assert await passwords.fits("e\u0301va e\u0301va", await passwords.hash("\u00e9va \u00e9va"))
    assert not await passwords.fits("\ud800", await passwords.hash("correct horse"))


@pytest.mark.parametrize("password", ["", "x" * 7, "x" * 257])
def test_a_password_is_neither_short_nor_endless(password: str) -> None:
    with pytest.raises(Unsuitable):
        suitable(password)
    assert suitable("x" * 8)
    assert suitable(one_time_password())


async def test_few_hashes_are_made_at_a_time_and_who_comes_when_too_many_wait_is_refused(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work: list[int] = []
    go = threading.Event()

    def slow(*_: object) -> bool:
        at_work.append(1)
        go.wait(10)
        return True

    monkeypatch.setattr(passwords, "_verify", slow)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(passwords.fits("x", "y")) for _ in range(PLACES + WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(TooManySignIns):
            await passwords.fits("x", "y")
        assert len(at_work) <= PLACES
        go.set()
    assert all(task.result() for task in waiting)
    assert await passwords.fits("x", "y")


async def test_who_waits_too_long_is_refused(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    go = threading.Event()
    monkeypatch.setattr(passwords, "_verify", lambda *_: go.wait(10))
    with pytest.raises(TooManySignIns):
        await passwords.fits("x", "y")
    go.set()
