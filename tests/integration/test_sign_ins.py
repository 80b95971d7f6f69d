"""How people sign in, stay so, and sign out, on a real PostgreSQL."""

import asyncio

import argon2
import pytest

from m3.access.access import Access
from m3.access.accounts import Accounts, at_the_machine
from m3.access.office import Office
from m3.access.principals import Principal
from m3.access.sign_ins import SignedIn
from m3.errors import Denied, Forbidden, NotSignedIn, PasswordChangeNeeded, Unsuitable, WrongPassword
from m3.store import Store, changes
from tests.support.town import Town, bearer
from tests.support.until import until

PASSWORD = "correct horse"
NEW = "battery staple"


async def mei(office: Office) -> SignedIn:
    """Mei, who has chosen her password, and is signed in."""
    once = await office.accounts.add_user(at_the_machine("default"), "mei")
    return await office.sign_ins.sign_in("default", "mei", once, PASSWORD)


async def whoever(access: Access, signed_in: SignedIn) -> Principal:
    return await access.identify(bearer(signed_in.access_token))


async def noted(town: Town) -> list[tuple[str, str, str]]:
    """Who did what, and whether it came to pass."""
    return [tuple(row) for row in await town.sql.fetch("SELECT actor, action, outcome FROM audit ORDER BY id")]


async def test_a_new_password_is_chosen_at_the_first_sign_in(access: Access, office: Office) -> None:
    once = await office.accounts.add_user(at_the_machine("default"), "mei")
    with pytest.raises(PasswordChangeNeeded):
        await office.sign_ins.sign_in("default", "mei", once)
    with pytest.raises(Unsuitable):
        await office.sign_ins.sign_in("default", "mei", once, "short")
    with pytest.raises(Unsuitable):
        await office.sign_ins.sign_in("default", "mei", once, once)
    signed_in = await office.sign_ins.sign_in("default", "mei", once, PASSWORD)
    assert (await whoever(access, signed_in)).name == "mei"
    with pytest.raises(NotSignedIn):
        await office.sign_ins.sign_in("default", "mei", once, NEW)
    assert (await whoever(access, await office.sign_ins.sign_in("default", "mei", PASSWORD))).kind == "person"
    assert signed_in.expires_in == 600


@pytest.mark.parametrize(
    ("tenant", "name", "password"),
    [
        ("default", "mei", "wrong horse"),
        ("default", "ann", PASSWORD),
        ("acme", "mei", PASSWORD),
        ("none", "mei", PASSWORD),
        ("default", "mei\x00", PASSWORD),
        ("default", "\ud800", PASSWORD),
        ("default", "m" * 10_000, PASSWORD),
        ("default", "mei", ""),
        ("default", "mei", PASSWORD + "\x00"),
    ],
)
async def test_a_wrong_password_and_a_wrong_name_are_told_alike(
    office: Office, tenant: str, name: str, password: str
) -> None:
    await mei(office)
    with pytest.raises(NotSignedIn, match="name or the password is wrong"):
        await office.sign_ins.sign_in(tenant, name, password)


async def test_who_has_no_account_costs_the_same_hash(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    await mei(office)
    compared: list[str] = []
    verify = office.sign_ins._passwords._verify

    def count(hashed: str, password: str) -> bool:
        compared.append(hashed)
        return verify(hashed, password)

    monkeypatch.setattr(office.sign_ins._passwords, "_verify", count)
    for name in ("mei", "ann", "ann", ".."):
        with pytest.raises(NotSignedIn):
            await office.sign_ins.sign_in("default", name, "wrong horse")
    assert [hashed.rpartition("$")[0].rpartition("$")[0] for hashed in compared] == [
        compared[0].rpartition("$")[0].rpartition("$")[0]
    ] * 4, "of the same parameters"


async def test_a_name_is_the_same_however_it_is_typed(office: Office) -> None:
    await mei(office)
    await office.sign_ins.sign_in("default", "MEI", PASSWORD)
    await office.sign_ins.sign_in("default", "\uff4d\uff45\uff49", PASSWORD)


async def test_a_refresh_token_is_exchanged_for_another(access: Access, office: Office) -> None:
    first = await mei(office)
    second = await office.sign_ins.refresh(first.refresh_token)
    third = await office.sign_ins.refresh(second.refresh_token)
    assert len({first.refresh_token, second.refresh_token, third.refresh_token}) == 3
    assert (await whoever(access, third)).name == "mei"


async def test_who_asks_twice_with_the_same_refresh_token_is_told_the_same(office: Office) -> None:
    first = await mei(office)
    told = await asyncio.gather(*(office.sign_ins.refresh(first.refresh_token) for _ in range(5)))
    assert len({signed_in.refresh_token for signed_in in told}) == 1
    await office.sign_ins.refresh(told[0].refresh_token)


async def test_a_refresh_token_that_was_exchanged_a_while_ago_ends_its_sign_in(
    access: Access, office: Office, town: Town
) -> None:
    first = await mei(office)
    second = await office.sign_ins.refresh(first.refresh_token)
    principal = await whoever(access, second)
    await town.sql.execute("UPDATE sign_ins SET refreshed_at = refreshed_at - interval '11 s'")
    with pytest.raises(NotSignedIn):
        await office.sign_ins.refresh(first.refresh_token)
    for signed_in in (first, second):
        with pytest.raises(NotSignedIn):
            await whoever(access, signed_in)
        with pytest.raises(NotSignedIn):
            await office.sign_ins.refresh(signed_in.refresh_token)
    assert ("mei", "token_reused", "refused") in await noted(town)
    assert principal.name == "mei"


async def test_a_wrong_secret_ends_the_sign_in_and_an_older_token_at_once(office: Office, town: Town) -> None:
    first = await mei(office)
    second = await office.sign_ins.refresh(first.refresh_token)
    await office.sign_ins.refresh(second.refresh_token)
    with pytest.raises(NotSignedIn):
        await office.sign_ins.refresh(first.refresh_token)
    other = await office.sign_ins.sign_in("default", "mei", PASSWORD)
    with pytest.raises(NotSignedIn):
        await office.sign_ins.refresh(other.refresh_token[:-43] + "x" * 43)
    with pytest.raises(NotSignedIn):
        await office.sign_ins.refresh(other.refresh_token)
    assert [action for _, action, _ in await noted(town)].count("token_reused") == 2


@pytest.mark.parametrize("token", ["", "m3r_", "x" * 5000, f"m3r_{'0' * 32}_{'x' * 43}", f"m3k_aaaaaaaa_{'x' * 43}"])
async def test_what_is_no_refresh_token_refreshes_nothing(office: Office, token: str) -> None:
    with pytest.raises(NotSignedIn):
        await office.sign_ins.refresh(token)


async def test_a_sign_in_that_was_not_used_for_long_has_ended(access: Access, office: Office, town: Town) -> None:
    signed_in = await mei(office)
    await town.sql.execute("UPDATE sign_ins SET expires_at = now()")
    with pytest.raises(NotSignedIn):
        await office.sign_ins.refresh(signed_in.refresh_token)
    with pytest.raises(NotSignedIn):
        await whoever(access, signed_in)


async def test_who_signs_out_is_out_at_once_and_stays_in_elsewhere(access: Access, office: Office) -> None:
    here = await mei(office)
    elsewhere = await office.sign_ins.sign_in("default", "mei", PASSWORD)
    await office.sign_ins.sign_out(await whoever(access, here))
    with pytest.raises(NotSignedIn):
        await whoever(access, here)
    with pytest.raises(NotSignedIn):
        await office.sign_ins.refresh(here.refresh_token)
    assert (await whoever(access, elsewhere)).name == "mei"


async def test_a_changed_password_ends_the_other_sign_ins(access: Access, office: Office, town: Town) -> None:
    here = await mei(office)
    elsewhere = await office.sign_ins.sign_in("default", "mei", PASSWORD)
    principal = await whoever(access, here)
    await whoever(access, elsewhere)
    with pytest.raises(WrongPassword):
        await office.sign_ins.change_password(principal, "wrong horse", NEW)
    with pytest.raises(Unsuitable):
        await office.sign_ins.change_password(principal, PASSWORD, "x" * 257)
    await office.sign_ins.change_password(principal, PASSWORD, NEW)
    assert await whoever(access, here) == principal
    for end in (whoever(access, elsewhere), office.sign_ins.sign_in("default", "mei", PASSWORD)):
        with pytest.raises(NotSignedIn):
            await end
    await office.sign_ins.sign_in("default", "mei", NEW)
    assert ("mei", "password_changed", "done") in await noted(town)


async def test_who_signs_in_elsewhere_has_no_password_here(access: Access, office: Office, town: Town) -> None:
    outsider = await access.identify(bearer(await town.person("ann")))
    with pytest.raises(Forbidden):
        await office.sign_ins.change_password(outsider, "", NEW)
    with pytest.raises(NotSignedIn):
        await office.sign_ins.sign_in("default", "ann", "")


async def test_one_sign_in_outlives_no_password_that_is_changed_in_the_same_moment(
    access: Access, office: Office
) -> None:
    principal = await whoever(access, await mei(office))
    signing_in = [office.sign_ins.sign_in("default", "mei", PASSWORD) for _ in range(4)]
    changing = office.sign_ins.change_password(principal, PASSWORD, NEW)
    *signed_in, changed = await asyncio.gather(*signing_in, changing, return_exceptions=True)
    assert changed is None
    for each in signed_in:
        assert isinstance(each, SignedIn | Denied)
        if isinstance(each, SignedIn):
            with pytest.raises(NotSignedIn):
                await whoever(access, each)


async def test_twenty_sign_in_at_once(access: Access, office: Office) -> None:
    cheap = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # or a busy machine may take too long
    office.sign_ins._passwords._hasher = cheap
    await mei(office)
    signed_in = await asyncio.gather(*(office.sign_ins.sign_in("default", "mei", PASSWORD) for _ in range(20)))
    assert {(await whoever(access, each)).name for each in signed_in} == {"mei"}
    assert len({(await whoever(access, each)).sign_in for each in signed_in}) == 20


async def test_sign_ins_are_noted_with_their_address(office: Office, town: Town) -> None:
    await mei(office)
    await office.sign_ins.sign_in("default", "mei", PASSWORD, address="203.0.113.7")
    with pytest.raises(NotSignedIn):
        await office.sign_ins.sign_in("default", "mei", "wrong horse", address="203.0.113.8")

    async def are_noted() -> bool:  # the refused one by a task
        rows = await town.sql.fetch(
            "SELECT action, outcome, address FROM audit WHERE actor = 'mei' ORDER BY id DESC LIMIT 2"
        )
        return [tuple(row) for row in rows] == [("login", "refused", "203.0.113.8"), ("login", "done", "203.0.113.7")]

    await until(are_noted)


async def test_no_secret_is_shown_where_it_is_not_asked_for(office: Office) -> None:
    signed_in = await mei(office)
    assert signed_in.refresh_token not in repr(signed_in)
    assert signed_in.access_token not in repr(signed_in)


async def test_the_first_start_makes_an_operator_once_and_open_threads(
    store: Store, access: Access, office: Office, town: Town
) -> None:
    others = Accounts(access.directory, office.sign_ins._passwords)
    tenants = ["default", "acme"]
    passwords = await asyncio.gather(
        office.accounts.begin(tenants), others.begin(tenants), office.accounts.begin(tenants)
    )
    (password,) = [password for password in passwords if password is not None]
    with pytest.raises(PasswordChangeNeeded):
        await office.sign_ins.sign_in("default", "admin", password)
    signed_in = await office.sign_ins.sign_in("default", "admin", password, PASSWORD)
    assert (await whoever(access, signed_in)).kind == "operator"
    assert await office.accounts.begin(["default", "later"]) is None
    threads = await town.sql.fetch("SELECT thread_id, visibility FROM threads ORDER BY thread_id")
    assert [tuple(row) for row in threads] == [("acme.default", "open"), ("default", "open"), ("later.default", "open")]


async def test_people_of_an_outside_issuer_who_come_first_do_not_keep_the_operator_away(
    office: Office, town: Town
) -> None:
    await town.account("guest")
    assert await office.accounts.begin(["default"]) is not None
    assert await office.accounts.begin(["default"]) is None


async def test_sign_ins_that_ended_go_and_so_do_those_that_are_too_many(
    access: Access, office: Office, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "SIGN_INS", 3)
    signed_in = [await mei(office), *[await office.sign_ins.sign_in("default", "mei", PASSWORD) for _ in range(3)]]
    with pytest.raises(NotSignedIn):
        await whoever(access, signed_in[0])
    assert {(await whoever(access, each)).name for each in signed_in[1:]} == {"mei"}
    await office.sign_ins.sign_out(await whoever(access, signed_in[3]))
    await office.sign_ins.sign_in("default", "mei", PASSWORD)
    assert {(await whoever(access, each)).name for each in signed_in[1:3]} == {"mei"}
    assert await town.sql.fetchval("SELECT count(*) FROM sign_ins") == 3
