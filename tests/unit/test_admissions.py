"""Whose sockets are open, and that they are closed when their authority ends."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from m3.access.admissions import Admissions
from m3.access.principals import ANYONE, Principal
from m3.access.rules import Action
from m3.errors import Denied, StoreUnavailable, UnknownThread
from m3.tasks import background
from services.pusher.close_codes import Close
from services.pusher.outbox import Outbox
from tests.support.until import until
from tests.support.writing import Writer

#: Seconds between looks.
SOON = 0.001


def person(number: int, **others: float) -> Principal:
    return Principal("person", id=UUID(int=number), name=f"person-{number}", **others)  # type: ignore[arg-type]


class Database:
    """Tells who may still read, unless it is ``away``."""

    def __init__(self, *refused: tuple[Principal, str]) -> None:
        self.refused = refused
        self.asked: list[list[tuple[Principal, str]]] = []
        self.away = False

    async def refusals(self, asked: Sequence[tuple[Principal, Action, str]]) -> list[Denied | None]:
        assert {action for _, action, _ in asked} == {Action.READ}
        self.asked.append([(principal, key) for principal, _, key in asked])
        if self.away:
            raise StoreUnavailable("The database is away.")
        return [UnknownThread() if asked in self.refused else None for asked in self.asked[-1]]


@asynccontextmanager
async def looking(database: Database) -> AsyncIterator[Admissions]:
    admissions = Admissions(database.refusals)
    async with background("admissions", admissions.look_again(SOON)):
        yield admissions


def opened(admissions: Admissions, principal: Principal, key: str) -> tuple[Writer, Outbox]:
    writer = Writer()
    outbox = Outbox(writer, 1_000)
    admissions.add(principal, key, outbox)
    return writer, outbox


async def test_the_sockets_of_a_principal_in_a_thread_are_asked_for_once() -> None:
    database = Database()
    async with looking(database) as admissions:
        for principal, key in [(person(1), "t"), (person(1), "t"), (person(1), "other"), (person(2), "t")]:
            opened(admissions, principal, key)
        await until(lambda: len(database.asked) > 1)
        assert sorted(database.asked[0], key=str) == sorted(
            [(person(1), "t"), (person(1), "other"), (person(2), "t")], key=str
        )


async def test_those_that_may_not_read_any_more_are_closed_and_no_others() -> None:
    database = Database((person(1), "t"))
    async with looking(database) as admissions:
        closed = [opened(admissions, person(1), "t")[0] for _ in range(2)]
        open_still = [opened(admissions, person(1), "other")[0], opened(admissions, person(2), "t")[0]]
        await until(lambda: len(database.asked) > 1)
        assert [writer.closed for writer in closed] == [Close.NO_LONGER_ALLOWED.value] * 2
        assert [writer.closed for writer in open_still] == [None, None]


async def test_as_many_as_there_are_are_asked_for_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3.access.admissions.PAGE", 2)
    database = Database((person(4), "t"))
    async with looking(database) as admissions:
        writers = [opened(admissions, person(number), "t")[0] for number in range(5)]
        await until(lambda: len(database.asked) > 2)
        assert [len(page) for page in database.asked[:3]] == [2, 2, 1]
        assert [writer.closed is not None for writer in writers] == [False, False, False, False, True]


async def test_while_the_database_is_away_all_stay_and_are_asked_for_again() -> None:
    database = Database((person(1), "t"))
    database.away = True
    async with looking(database) as admissions:
        writer, _ = opened(admissions, person(1), "t")
        await until(lambda: len(database.asked) > 2)
        assert database.asked[:3] == [[(person(1), "t")]] * 3
        assert writer.closed is None
        database.away = False
        await until(lambda: writer.closed is not None)


async def test_who_has_no_socket_left_is_not_asked_for_and_nothing_of_them_is_kept() -> None:
    database = Database()
    async with looking(database) as admissions:
        _, gone = opened(admissions, person(1), "t")
        _, stays = opened(admissions, person(1), "other")
        admissions.remove(person(1), gone)
        await until(lambda: len(database.asked) > 1)
        assert database.asked[0] == [(person(1), "other")]
        admissions.remove(person(1), stays)
        assert not admissions._authorities


async def test_all_sockets_of_a_principal_share_it() -> None:
    admissions = Admissions(Database().refusals)
    one = person(1)
    assert admissions.shared(one) is one
    opened(admissions, one, "t")
    assert admissions.shared(person(1)) is one


async def test_whoever_is_not_asked_who_they_are_is_not_asked_for_later_either() -> None:
    database = Database()
    async with looking(database) as admissions:
        _, outbox = opened(admissions, ANYONE, "t")
        _, other = opened(admissions, person(1), "t")
        await until(lambda: len(database.asked) > 1)
        assert database.asked[0] == [(person(1), "t")]
        admissions.remove(ANYONE, outbox)
        admissions.remove(person(1), other)


async def test_sockets_are_closed_when_the_credential_ends_that_cannot_be_renewed() -> None:
    admissions = Admissions(Database().refusals)
    over, later = person(1, expires=time.time() - 1), person(1, expires=time.time() + 60)
    ended = [opened(admissions, over, key)[0] for key in ("t", "t", "other")]
    renewed, outbox = opened(admissions, later, "t")
    await until(lambda: all(writer.closed is not None for writer in ended))
    assert [writer.closed for writer in ended] == [Close.SIGN_IN_AGAIN.value] * 3
    assert renewed.closed is None
    end = admissions._authorities[later].end
    admissions.remove(later, outbox)
    assert end is not None
    assert end.cancelled()
