"""Who asks, and whether they may, on a real PostgreSQL."""

import asyncio

import pytest

from m3.access.access import Access
from m3.access.principals import ANYONE, Principal
from m3.access.rules import Action
from m3.errors import Forbidden, NotSignedIn, StartError, UnknownThread
from m3.settings import Settings
from m3.store import Store
from tests.support.town import Town, asking, bearer


async def may(access: Access, principal: Principal, action: Action, key: str) -> str:
    try:
        await access.check(principal, action, key)
    except (UnknownThread, Forbidden) as error:
        return error.code
    return "yes"


async def test_in_an_open_room_everybody_is_anyone_and_may_everything(store: Store) -> None:
    async with Access.open(Settings(), store) as access:
        assert not access.required
        assert await access.identify([]) == ANYONE == await access.redeem("")
        assert await access.still_may([(ANYONE, Action.ADMIT, "t")]) == [True]
        await access.check(ANYONE, Action.ADMIT, "never heard of")
        access.check_without_thread(ANYONE, Action.OPERATE)


async def test_a_room_that_asks_needs_keys(store: Store) -> None:
    with pytest.raises(StartError, match="TOKEN_KEYS"):
        async with Access.open(asking(token_keys=None), store):
            pass


async def test_a_person_comes_in_with_a_token_and_a_program_with_its_key(access: Access, town: Town) -> None:
    person = await access.identify(bearer(await town.person("mei", "acme")))
    program = await access.identify(bearer(await town.program("danmaku")))
    assert (person.kind, person.tenant, person.name) == ("person", "acme", "mei")
    assert (program.kind, program.tenant, program.name) == ("program", "default", "danmaku")
    assert (await access.identify(bearer(await town.person("root", operator=True)))).kind == "operator"


async def test_a_ticket_lets_in_whom_it_was_made_for_and_only_once(access: Access, town: Town) -> None:
    person = await access.identify(bearer(await town.person("mei")))
    ticket = await access.ticket_for(person)
    told = await asyncio.gather(access.redeem(ticket), access.redeem(ticket), return_exceptions=True)
    assert sorted(map(type, told), key=str) == sorted((Principal, NotSignedIn), key=str)
    assert person in told


async def test_a_standing_allows_what_the_rules_say_and_no_standing_is_as_no_thread(access: Access, town: Town) -> None:
    mei, ann = [await access.identify(bearer(await town.person(name))) for name in ("mei", "ann")]
    feed = await access.identify(bearer(await town.program("feed")))
    await town.thread("show", mei="owner", feed="feeder")
    await town.thread("plaza", "open")
    assert await may(access, mei, Action.ADMIT, "show") == "yes"
    assert await may(access, feed, Action.FEED, "show") == "yes"
    assert await may(access, feed, Action.READ, "show") == "forbidden"
    assert await may(access, ann, Action.READ, "show") == await may(access, ann, Action.READ, "none") == "not_found"
    assert await may(access, ann, Action.SPEAK, "plaza") == "yes"
    assert await may(access, ann, Action.CONFIGURE, "plaza") == "forbidden"
    assert await may(access, feed, Action.FEED, "plaza") == "not_found"
    asked = [(mei, Action.ADMIT, "show"), (feed, Action.READ, "show"), (ann, Action.READ, "show")]
    assert await access.still_may(asked) == [True, False, False]
    assert await access.still_may([]) == []
