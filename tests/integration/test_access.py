"""Who asks, and whether they may, on a real PostgreSQL."""

import asyncio
from collections.abc import Sequence

import pytest
from limits import RateLimitItemPerYear

from m3.access import limits, tokens
from m3.access.access import Access
from m3.access.accounts import at_the_machine
from m3.access.credentials import digest, new_ticket
from m3.access.office import Office
from m3.access.principals import ANYONE, Principal
from m3.access.rules import Action, about_a_thread
from m3.access.tokens import Tokens, parse_keys
from m3.errors import Forbidden, NotSignedIn, StartError, StoreUnavailable, TooOften, UnknownThread
from m3.settings import Settings
from m3.store import Store
from m3.store.postgres import Row
from tests.support.clock import Clock
from tests.support.town import KEYS, Town, asking, bearer
from tests.support.until import until


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
        assert await still_may(access, [(ANYONE, Action.ADMIT, "t")]) == [True]
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


async def test_the_database_is_asked_about_so_many_made_up_credentials_and_no_more(
    access: Access, store: Store, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await town.program("danmaku")
    await access.identify(bearer(key))
    asked: list[str] = []
    ask = store.ask

    async def count(name: str, *arguments: object) -> list[Row]:
        asked.append(name)
        return await ask(name, *arguments)

    monkeypatch.setattr(store, "ask", count)
    monkeypatch.setattr(limits, "FAILURES", RateLimitItemPerYear(4))  # whose end no run meets
    for number in range(10):
        made_up = f"m3k_aaaaaaaa_{number:043}"
        for knock in (access.identify(bearer(made_up)), access.redeem(new_ticket())):
            with pytest.raises(NotSignedIn if number < 2 else TooOften):
                await knock
    assert asked == ["key_of_prefix", "take_ticket"] * 2
    await town.sql.execute("UPDATE producer_keys SET revoked_at = now()")
    access._known.forget(lambda *_: True)
    for _ in range(3):  # was good lately, and so is asked about once
        with pytest.raises(TooOften):
            await access.identify(bearer(key))
    assert len(asked) == 5


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
    assert await still_may(access, asked) == [True, False, False]
    assert await still_may(access, []) == []


async def still_may(access: Access, asked: Sequence[tuple[Principal, Action, str]]) -> list[bool]:
    return [why is None for why in await access.refusals(asked)]


REVOKED = {
    "the account": "UPDATE accounts SET revoked_at = now()",
    "the sign-in": "UPDATE sign_ins SET revoked_at = now()",
    "the key": "UPDATE producer_keys SET revoked_at = now()",
}


@pytest.mark.parametrize(
    ("who", "what"), [("person", "the account"), ("person", "the sign-in"), ("program", "the key")]
)
async def test_what_is_revoked_is_seen_within_15_seconds_by_a_process_that_is_not_told(
    store: Store, town: Town, who: str, what: str
) -> None:
    clock = Clock()
    async with Access.open(asking(), store, clock=clock) as access:
        headers = bearer(await (town.person("mei") if who == "person" else town.program("mei")))
        await town.thread("show", mei="member")
        principal = await access.identify(headers)
        await access.check(principal, Action.READ, "show")
        await town.sql.execute(REVOKED[what])
        assert await still_may(access, [(principal, Action.READ, "show")]) == [False]
        clock.now = 14.9
        assert await access.identify(headers) == principal
        clock.now = 15.0
        with pytest.raises(NotSignedIn):
            await access.identify(headers)


async def test_who_was_dismissed_is_out_within_15_seconds_and_who_was_admitted_in_at_once(
    store: Store, town: Town
) -> None:
    clock = Clock()
    async with Access.open(asking(), store, clock=clock) as access:
        mei, ann = [await access.identify(bearer(await town.person(name))) for name in ("mei", "ann")]
        await town.thread("show", mei="member")
        await access.check(mei, Action.SPEAK, "show")
        assert await may(access, ann, Action.READ, "show") == "not_found"
        await town.sql.execute("UPDATE members SET principal_id = $1", ann.id)
        assert await may(access, ann, Action.SPEAK, "show") == "yes"
        assert await may(access, ann, Action.ADMIT, "show") == "forbidden"
        await town.sql.execute("UPDATE members SET role = 'owner'")
        assert await may(access, ann, Action.ADMIT, "show") == "yes"
        assert await may(access, mei, Action.SPEAK, "show") == "yes"
        clock.now = 15.0
        assert await may(access, mei, Action.SPEAK, "show") == "not_found"
        await town.sql.execute("UPDATE threads SET visibility = 'open'")
        assert await may(access, mei, Action.SPEAK, "show") == "yes"


async def test_what_this_process_changed_itself_it_is_told_to_forget(access: Access, town: Town) -> None:
    headers = bearer(await town.person("mei"))
    mei = await access.identify(headers)
    await town.thread("show", mei="member")
    await town.thread("plaza", "open")
    for key in ("show", "plaza"):
        await access.check(mei, Action.SPEAK, key)
    await town.sql.execute("UPDATE threads SET visibility = 'private'")
    access.forget(key="plaza")
    assert await may(access, mei, Action.SPEAK, "plaza") == "not_found"
    await town.sql.execute("DELETE FROM members")
    assert await may(access, mei, Action.SPEAK, "show") == "yes"
    access.forget(mei.id)
    assert await may(access, mei, Action.SPEAK, "show") == "not_found"
    await town.sql.execute("UPDATE accounts SET revoked_at = now()")
    access.forget(mei.id)
    with pytest.raises(NotSignedIn):
        await access.identify(headers)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Basic bWVpOm1laQ==")],
        [(b"authorization", b"Bearer x y")],
        [(b"authorization", b"Bearer x, Bearer y")],
        [(b"authorization", b"Bearer \xff")],
        [(b"authorization", b"Bearer " + b"x" * 65536)],
        [(b"authorization", b"Bearer m3k_aaaaaaaa_" + b"x" * 43)],
        [(b"authorization", b"Bearer m3t_" + b"x" * 43)],
        [(b"cookie", b"authorization=x")],
        [(b"x-authorization", b"Bearer x")],
    ],
)
async def test_who_shows_nothing_that_is_good_is_not_signed_in(
    access: Access, headers: list[tuple[bytes, bytes]]
) -> None:
    with pytest.raises(NotSignedIn):
        await access.identify(headers)


async def test_of_two_authorization_headers_none_is_believed(access: Access, town: Town) -> None:
    (good,) = bearer(await town.person("mei"))[1:]
    for headers in ([good, good], [good, (b"authorization", b"Bearer x")], [(b"authorization", b""), good]):
        with pytest.raises(NotSignedIn):
            await access.identify(headers)
    assert (await access.identify([good])).name == "mei"
    assert (await access.identify([(b"authorization", good[1].replace(b"Bearer", b"bearer"))])).name == "mei"


async def test_a_key_with_another_secret_is_not_good(access: Access, town: Town) -> None:
    key = await town.program("feed")
    with pytest.raises(NotSignedIn):
        await access.identify(bearer(key[:-43] + "x" * 43))


async def test_a_refresh_token_opens_no_door(access: Access, office: Office) -> None:
    once = await office.accounts.add_user(at_the_machine("default"), "mei")
    signed_in = await office.sign_ins.sign_in("default", "mei", once, "correct horse")
    with pytest.raises(NotSignedIn):
        await access.identify(bearer(signed_in.refresh_token))


async def test_a_token_that_says_another_tenant_than_its_account_has_is_not_good(access: Access, town: Town) -> None:
    account = await town.account("mei", "acme")
    with pytest.raises(NotSignedIn):
        await access.identify(bearer(await town.signed_in(account, "default")))


async def test_a_token_of_somebody_elses_sign_in_is_not_good(access: Access, town: Town) -> None:
    mei, ann = await town.account("mei"), await town.account("ann")
    await town.signed_in(mei)
    sign_in = await town.sql.fetchval("SELECT sign_in_id FROM sign_ins")
    with pytest.raises(NotSignedIn):
        await access.identify(bearer(Tokens(parse_keys(KEYS), 600).mint(ann, "default", sign_in)))


async def test_who_is_of_a_tenant_that_is_no_more_comes_in_no_more(store: Store, access: Access, town: Town) -> None:
    credentials = [await town.person("mei", "acme"), await town.program("feed", "acme")]
    principals = [await access.identify(bearer(credential)) for credential in credentials]
    ticket = await access.ticket_for(principals[0])
    await town.thread("acme.show", mei="owner", feed="member")
    async with Access.open(asking(tenants="default"), store) as smaller:
        for credential in credentials:
            with pytest.raises(NotSignedIn):
                await smaller.identify(bearer(credential))
        with pytest.raises(NotSignedIn):
            await smaller.redeem(ticket)
        assert await still_may(smaller, [(each, Action.READ, "acme.show") for each in principals]) == [False, False]


async def test_a_remembered_token_ends_when_it_expires(
    store: Store, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "LEEWAY", 0)
    account = await town.account("mei")
    await town.signed_in(account)
    sign_in = await town.sql.fetchval("SELECT sign_in_id FROM sign_ins")
    token = Tokens(parse_keys(KEYS), 2).mint(account, "default", sign_in)
    async with Access.open(asking(), store, clock=Clock()) as access:
        await access.identify(bearer(token))

        async def expired() -> bool:
            try:
                await access.identify(bearer(token))
            except NotSignedIn as error:
                return "expired" in str(error)
            return False

        await until(expired)


async def test_tokens_stay_good_while_keys_are_exchanged(store: Store, town: Town) -> None:
    account = await town.account("mei")
    old = await town.signed_in(account)
    exchanged = f"second:{'2' * 64},{KEYS}"
    async with Access.open(asking(token_keys=exchanged), store) as access:
        for token in (old, await town.signed_in(account, keys=exchanged)):
            assert (await access.identify(bearer(token))).id == account
    async with Access.open(asking(token_keys=f"second:{'2' * 64}"), store) as access:
        with pytest.raises(NotSignedIn):
            await access.identify(bearer(old))


async def test_a_ticket_is_good_for_a_moment_and_for_nobody_who_was_signed_out(access: Access, town: Town) -> None:
    mei = await access.identify(bearer(await town.person("mei")))
    late, early = await access.ticket_for(mei), await access.ticket_for(mei)
    lasts = await town.sql.fetchval("SELECT extract(epoch FROM max(expires_at) - now()) FROM tickets")
    assert 0 < lasts <= 30
    await town.sql.execute("UPDATE tickets SET expires_at = now() WHERE ticket_hash = $1", digest(late))
    for ticket in (late, "", "m3t_", f"m3t_{'x' * 43}", f"{early}x"):
        with pytest.raises(NotSignedIn):
            await access.redeem(ticket)
    await town.sql.execute(REVOKED["the sign-in"])
    with pytest.raises(NotSignedIn):
        await access.redeem(early)


async def test_tickets_that_nobody_used_do_not_stay(access: Access, town: Town) -> None:
    mei = await access.identify(bearer(await town.person("mei")))
    for _ in range(5):
        await access.ticket_for(mei)
    await town.sql.execute("UPDATE tickets SET expires_at = now() - interval '1 s'")
    await access.ticket_for(mei)
    assert await town.sql.fetchval("SELECT count(*) FROM tickets") == 1


async def test_the_table_has_no_ticket_and_no_key_that_could_be_shown(access: Access, town: Town) -> None:
    key = await town.program("feed")
    ticket = await access.ticket_for(await access.identify(bearer(key)))
    for table in ("tickets", "producer_keys"):
        rows = str(await town.sql.fetch(f"SELECT {table}::text FROM {table}"))
        assert key[-43:] not in rows
        assert ticket[-43:] not in rows


@pytest.mark.parametrize("action", [action for action in Action if about_a_thread(action)], ids=lambda it: it.name)
async def test_a_thread_of_others_is_told_from_none_by_nothing(access: Access, town: Town, action: Action) -> None:
    await town.account("owner")
    await town.account("owner", "acme")
    await town.thread("show", owner="owner")
    await town.thread("acme.show", owner="owner")
    await town.thread("acme.plaza", "open")
    stranger = await access.identify(bearer(await town.person("stranger")))
    program = await access.identify(bearer(await town.program("feed")))
    operator = await access.identify(bearer(await town.person("root", operator=True)))
    for principal in (stranger, program):
        for key in ("show", "acme.show", "acme.plaza", "none", "acme.none"):
            with pytest.raises(UnknownThread) as refusal:
                await access.check(principal, action, key)
            assert str(refusal.value) == "There is no such thread."
    for key in ("acme.show", "acme.plaza", "none", "acme.none"):
        with pytest.raises(UnknownThread):
            await access.check(operator, action, key)


async def test_an_operator_sees_to_every_thread_of_the_tenant_and_feeds_none(access: Access, town: Town) -> None:
    operator = await access.identify(bearer(await town.person("root", operator=True)))
    await town.account("mei")
    await town.thread("show", mei="owner")
    for action in (Action.READ, Action.SPEAK, Action.CONFIGURE, Action.ADMIT):
        await access.check(operator, action, "show")
    assert await may(access, operator, Action.FEED, "show") == "forbidden"
    access.check_without_thread(operator, Action.OPERATE)
    with pytest.raises(Forbidden):
        access.check_without_thread(await access.identify(bearer(await town.person("ann"))), Action.OPERATE)


async def test_who_is_no_operator_any_more_may_no_more_of_that(access: Access, town: Town) -> None:
    operator = await access.identify(bearer(await town.person("root", operator=True)))
    await town.account("mei")
    await town.thread("show", mei="owner")
    assert await still_may(access, [(operator, Action.READ, "show")]) == [True]
    await town.sql.execute("UPDATE accounts SET operator = false")
    assert await still_may(access, [(operator, Action.READ, "show")]) == [False]


async def test_many_are_looked_at_in_one_look(access: Access, town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    mei = await access.identify(bearer(await town.person("mei")))
    feed = await access.identify(bearer(await town.program("feed")))
    await town.thread("show", mei="reader", feed="member")
    asked = [(mei, Action.READ, "show"), (mei, Action.SPEAK, "show"), (feed, Action.READ, "show")] * 300
    looks = counted(access, monkeypatch)
    assert await still_may(access, asked) == [True, False, True] * 300
    assert looks == ["stances"]


async def test_who_asks_at_once_or_again_costs_one_look(
    access: Access, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = bearer(await town.person("mei"))
    operator = bearer(await town.person("root", operator=True))
    await town.thread("show", mei="member")
    looks = counted(access, monkeypatch)
    for _ in range(2):
        told = await asyncio.gather(*(access.identify(headers) for _ in range(20)))
        await asyncio.gather(*(access.check(each, Action.READ, "show") for each in told))
    assert looks == ["who", "stances"]
    for _ in range(2):
        await access.check(await access.identify(operator), Action.READ, "show")
    assert looks == ["who", "stances"] * 2


def counted(access: Access, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the database is asked from now on."""
    looks: list[str] = []
    ask = access.directory._store.ask

    async def count(name: str, *arguments: object) -> list[Row]:
        looks.append(name)
        return await ask(name, *arguments)

    monkeypatch.setattr(access.directory._store, "ask", count)
    return looks


async def test_while_the_database_is_away_nobody_is_refused_for_that(access: Access, town: Town) -> None:
    headers = bearer(await town.person("mei"))
    other = bearer(await town.person("ann"))
    await town.thread("show", mei="member")
    mei = await access.identify(headers)
    await access.check(mei, Action.READ, "show")
    await access.directory._store._pool.close()
    assert await access.identify(headers) == mei
    await access.check(mei, Action.READ, "show")
    for away in (
        access.identify(other),
        access.check(mei, Action.READ, "another"),
        access.refusals([(mei, Action.READ, "show")]),
        access.redeem(f"m3t_{'x' * 43}"),
    ):
        with pytest.raises(StoreUnavailable):
            await away
