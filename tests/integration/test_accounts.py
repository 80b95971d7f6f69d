"""Accounts, producer keys, threads and their members, on a real PostgreSQL."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import argon2
import pytest

from m3.access.access import Access
from m3.access.accounts import Accounts, at_the_machine
from m3.access.credentials import new_invite
from m3.access.invites import Invites
from m3.access.memberships import Memberships
from m3.access.office import Office
from m3.access.principals import Principal
from m3.access.rules import Action, MemberKind, Role
from m3.errors import Denied, Forbidden, LastOwner, NoMember, NotSignedIn, Taken, UnknownName, UnknownThread, Unsuitable
from m3.store.directory import Member, OwnThread, ThreadOfKey
from tests.support.town import Town, bearer
from tests.support.until import until

PASSWORD = "correct horse"
INVITE = new_invite()[1]


class Behind:
    """Calls a part of the office as a door does, which speaks for the tenant of who asks."""

    def __init__(self, part: object, access: Access) -> None:
        self._part = part
        self._access = access

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._part, name)

        async def call(first: Any, *others: Any, **named: Any) -> Any:
            with self._access.speaking_for(first) if isinstance(first, Principal) else nullcontext():
                return await method(first, *others, **named)

        return call


@pytest.fixture
def office(office: Office, access: Access) -> Office:
    """Behind the wall between tenants."""
    accounts, memberships = Behind(office.accounts, access), Behind(office.memberships, access)
    invites = Behind(office.invites, access)
    return replace(
        office,
        accounts=cast("Accounts", accounts),
        memberships=cast("Memberships", memberships),
        invites=cast("Invites", invites),
    )


async def operator(access: Access, town: Town, tenant: str = "default") -> Principal:
    return await access.identify(bearer(await town.person("root", tenant, operator=True)))


async def person(access: Access, town: Town, name: str, tenant: str = "default") -> Principal:
    return await access.identify(bearer(await town.person(name, tenant)))


async def noted(town: Town, action: str) -> list[tuple[str, str, str]]:
    """Who did that, to what, and how."""
    rows = await town.sql.fetch("SELECT actor, target, detail FROM audit WHERE action = $1 ORDER BY id", action)
    return [tuple(row) for row in rows]


async def test_a_name_is_given_once_and_is_free_when_its_account_is_revoked(
    access: Access, office: Office, town: Town
) -> None:
    root = await operator(access, town)
    await office.accounts.add_user(root, "Mei")
    with pytest.raises(Taken):
        await office.accounts.add_user(root, "mei")
    await office.accounts.add_user(at_the_machine("acme"), "mei", operator=True)
    assert [(user.name, user.operator, user.one_time) for user in await office.accounts.users(root)] == [
        ("mei", False, True),
        ("root", True, False),
    ]
    await office.accounts.revoke_user(root, "mei")
    assert [user.name for user in await office.accounts.users(root)] == ["root"]
    assert await office.accounts.add_user(root, "mei")
    assert await noted(town, "user_added") == [
        ("root", "mei", "person"),
        ("command line", "mei", "operator"),
        ("root", "mei", "person"),
    ]
    assert await noted(town, "user_revoked") == [("root", "mei", "")]


async def test_lists_come_in_pages(access: Access, office: Office, town: Town) -> None:
    root = await operator(access, town)
    for name in ("ann", "bob", "mei"):
        await town.account(name)
        await town.thread(name, "open")
    assert [user.name for user in await office.accounts.users(root, after="ann", limit=2)] == ["bob", "mei"]
    threads = await office.memberships.threads_of(root, after="ann", limit=1)
    assert [thread.thread_id for thread in threads] == ["bob"]


async def test_who_is_revoked_is_out_at_once_and_finds_nothing_when_the_name_is_given_again(
    access: Access, office: Office, town: Town
) -> None:
    root = await operator(access, town)
    token = await town.person("mei")
    mei = await access.identify(bearer(token))
    await town.thread("show", mei="member", root="owner")
    await access.check(mei, Action.READ, "show")
    await office.accounts.revoke_user(root, "mei")
    with pytest.raises(NotSignedIn):
        await access.identify(bearer(token))
    assert await office.memberships.members("show") == [Member("root", "person", "owner")]
    other = await person(access, town, "mei")
    with pytest.raises(UnknownThread):
        await access.check(other, Action.READ, "show")


async def test_an_operator_is_left(access: Access, office: Office, town: Town) -> None:
    root = await operator(access, town)
    with pytest.raises(Forbidden):
        await office.accounts.revoke_user(root, "root")
    assert [user.name for user in await office.accounts.users(root)] == ["root"]
    with pytest.raises(UnknownName):
        await office.accounts.revoke_user(root, "nobody")


#: Every change that somebody with an account makes.
CHANGES: dict[str, Callable[[Office, Principal], Awaitable[object]]] = {
    "user added": lambda office, by: office.accounts.add_user(by, "new", operator=True),
    "user reset": lambda office, by: office.accounts.reset_user(by, "ann"),
    "user changed": lambda office, by: office.accounts.change_user(by, "ann", operator=True),
    "user revoked": lambda office, by: office.accounts.revoke_user(by, "ann"),
    "key added": lambda office, by: office.accounts.add_key(by, "new", ["show"]),
    "key revoked": lambda office, by: office.accounts.revoke_key(by, "00000000"),
    "thread made": lambda office, by: office.memberships.make_thread(by),
    "thread made by its id": lambda office, by: office.memberships.make_thread(by, "new"),
    "member added": lambda office, by: office.memberships.admit(by, "show", Member("root", "person", "owner")),
    "program admitted": lambda office, by: office.memberships.admit(by, "show", Member("feed", "program", "feeder")),
    "member removed": lambda office, by: office.memberships.dismiss(by, "show", "ann"),
    "left": lambda office, by: office.memberships.dismiss(by, "show", by.name or ""),
    "visibility changed": lambda office, by: office.memberships.change_visibility(by, "show", "open"),
    "invite made": lambda office, by: office.invites.make(by, "show", "member", timedelta(days=1)),
    "invite taken back": lambda office, by: office.invites.take_back(by, "show", "00000000"),
    "joined": lambda office, by: office.invites.accept(by, INVITE),
    "password changed": lambda office, by: office.sign_ins.change_password(by, PASSWORD, "another horse"),
}
#: Those that an owner of the thread makes too, and those that everybody does.
ADMITTING = ("member added", "member removed", "visibility changed", "invite made", "invite taken back")
ONES_OWN = ("left", "thread made", "password changed", "joined")


async def everything(town: Town) -> list[object]:
    """What changes could change."""
    tables = "accounts", "producer_keys", "members", "threads", "sign_ins", "invites"
    found = [await town.sql.fetch(f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables]
    return [*found, await town.sql.fetch("SELECT action FROM audit WHERE outcome = 'done' ORDER BY id")]


@pytest.fixture
async def root(access: Access, office: Office, town: Town) -> Principal:
    """An operator who owns the thread `show` beside others, with a password, and who was let in just now."""
    root = await operator(access, town)
    hashed = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    await town.account("ann")
    await town.account("other", operator=True)
    await town.program("feed")
    await town.thread("show", root="owner", ann="member", other="owner")
    await town.sql.execute("UPDATE accounts SET password_hash = $1", hashed)
    await access.check(root, Action.ADMIT, "show")
    return root


async def refuses(office: Office, town: Town, by: Principal, change: str) -> type[BaseException]:
    """With what error the change is refused, which changes nothing."""
    before = await everything(town)
    with pytest.raises(Denied) as refused:
        await CHANGES[change](office, by)
    assert await everything(town) == before, change
    return refused.type


@pytest.mark.parametrize(
    "by_another_process",
    [
        "UPDATE accounts SET revoked_at = now() WHERE name = 'root'",
        "UPDATE sign_ins SET revoked_at = now()",
        "UPDATE sign_ins SET expires_at = now()",
    ],
)
async def test_who_was_revoked_or_signed_out_elsewhere_changes_nothing_however_lately_they_were_let_in(
    office: Office, town: Town, root: Principal, by_another_process: str
) -> None:
    await town.sql.execute(by_another_process)
    told = {change: await refuses(office, town, root, change) for change in CHANGES}
    assert told.pop("password changed") in {NotSignedIn, Forbidden}
    assert {*told.values()} == {NotSignedIn}


async def test_who_is_no_operator_any_more_does_nothing_that_takes_one(
    office: Office, town: Town, root: Principal
) -> None:
    await town.sql.execute("UPDATE accounts SET operator = false WHERE name = 'root'")
    takes_one = [change for change in CHANGES if change not in {*ADMITTING, *ONES_OWN}]
    assert {await refuses(office, town, root, change) for change in takes_one} == {Forbidden}


@pytest.mark.parametrize(
    ("by_another_process", "error"),
    [("UPDATE members SET role = 'reader' WHERE role = 'owner'", Forbidden), ("DELETE FROM members", UnknownThread)],
)
async def test_who_owns_a_thread_no_more_says_nothing_about_who_does(
    office: Office, town: Town, root: Principal, by_another_process: str, error: type[Exception]
) -> None:
    await town.sql.execute("UPDATE accounts SET operator = false WHERE name = 'root'")
    await town.sql.execute(by_another_process)
    assert {await refuses(office, town, root, change) for change in ADMITTING} == {error}


async def test_of_two_operators_who_revoke_each_other_at_once_one_is_left(
    access: Access, office: Office, town: Town
) -> None:
    for number in range(40):
        names = [f"one-{number}", f"two-{number}"]
        one, two = [await access.identify(bearer(await town.person(name, operator=True))) for name in names]
        each_other = office.accounts.revoke_user(one, names[1]), office.accounts.revoke_user(two, names[0])
        told = await asyncio.gather(*each_other, return_exceptions=True)
        assert {*map(type, told)} == {type(None), NotSignedIn}


async def test_two_operators_who_reset_each_other_at_once_wait_for_one_another(
    access: Access, office: Office, town: Town
) -> None:
    for number in range(20):
        names = [f"one-{number}", f"two-{number}"]
        one, two = [await access.identify(bearer(await town.person(name, operator=True))) for name in names]
        await town.sql.execute("UPDATE accounts SET password_hash = 'x'")
        each_other = office.accounts.reset_user(one, names[1]), office.accounts.reset_user(two, names[0])
        told = await asyncio.gather(*each_other, return_exceptions=True)
        assert {*map(type, told)} == {str, NotSignedIn}


async def test_of_two_owners_who_dismiss_each_other_at_once_one_is_left(
    access: Access, office: Office, town: Town
) -> None:
    one, two = await person(access, town, "one"), await person(access, town, "two")
    for number in range(20):
        show = f"show-{number}"
        await town.thread(show, one="owner", two="owner")
        each_other = office.memberships.dismiss(one, show, "two"), office.memberships.dismiss(two, show, "one")
        told = await asyncio.gather(*each_other, return_exceptions=True)
        assert {*map(type, told)} == {type(None), UnknownThread}
        assert len(await office.memberships.members(show)) == 1


@pytest.mark.parametrize("role", ["member", "reader", "owner"])
async def test_everybody_may_leave(access: Access, office: Office, town: Town, role: Role) -> None:
    mei = await person(access, town, "mei")
    await town.account("ann")
    await town.thread("show", mei=role, ann="owner")
    await office.memberships.dismiss(mei, "show", "Mei")
    assert await office.memberships.members("show") == [Member("ann", "person", "owner")]
    with pytest.raises(UnknownThread):
        await access.check(mei, Action.READ, "show")
    assert await noted(town, "member_removed") == [("mei", "show", "person mei")]


async def test_nobody_but_an_owner_has_others_leave_and_the_last_owner_stays(
    access: Access, office: Office, town: Town
) -> None:
    mei, ann = await person(access, town, "mei"), await person(access, town, "ann")
    await town.thread("show", mei="owner", ann="member")
    with pytest.raises(Forbidden):
        await office.memberships.dismiss(ann, "show", "mei")
    with pytest.raises(LastOwner):
        await office.memberships.dismiss(mei, "show", "mei")


async def test_programs_are_admitted_by_operators_whose_keys_are_theirs(
    access: Access, office: Office, town: Town
) -> None:
    mei, root = await person(access, town, "mei"), await operator(access, town)
    await town.program("feed")
    await town.thread("show", mei="owner")
    feed = Member("feed", "program", "feeder")
    with pytest.raises(Forbidden):
        await office.memberships.admit(mei, "show", feed)
    await office.memberships.admit(root, "show", feed)
    await office.memberships.dismiss(mei, "show", "feed", "program")


async def test_a_refused_change_is_noted_and_who_is_signed_out_is_not_let_in_again(
    access: Access, office: Office, town: Town
) -> None:
    token = await town.person("root", operator=True)
    root = await access.identify(bearer(token))
    await town.sql.execute("UPDATE accounts SET revoked_at = now()")
    with pytest.raises(NotSignedIn):
        await office.accounts.add_user(root, "new", operator=True)
    with pytest.raises(NotSignedIn):
        await access.identify(bearer(token))

    async def is_noted() -> bool:
        return await noted(town, "refused") == [("root", "", "operate: not_signed_in")]

    await until(is_noted)


async def test_no_operator_reaches_another_tenants_people_keys_or_threads(
    access: Access, office: Office, town: Town
) -> None:
    root, other = await operator(access, town), await operator(access, town, "acme")
    await town.account("mei", "acme")
    await town.thread("acme.show", "open", mei="owner")
    await town.thread("show")
    await office.accounts.add_key(other, "feed", ["show"])
    (key,) = await office.accounts.keys(other)
    assert [user.name for user in await office.accounts.users(root)] == ["root"]
    assert await office.accounts.keys(root) == []
    assert await office.memberships.threads_of(root) == []
    for attempt in (
        office.accounts.revoke_user(root, "mei"),
        office.accounts.revoke_key(root, key.prefix),
        office.memberships.admit(root, "show", Member("mei", "person", "member")),
        office.memberships.admit(root, "show", Member("feed", "program", "feeder")),
    ):
        with pytest.raises(UnknownName):
            await attempt
    assert [user.name for user in await office.accounts.users(other)] == ["mei", "root"]


async def test_a_key_feeds_its_threads_is_listed_by_its_prefix_and_revoked(
    access: Access, office: Office, town: Town
) -> None:
    root = await operator(access, town)
    await town.thread("show")
    await town.thread("plaza")
    feed = await office.accounts.add_key(root, "danmaku", ["show", "plaza"])
    bot = await office.accounts.add_key(root, "bot", ["show"], reads=True)
    feeding, reading = [await access.identify(bearer(key)) for key in (feed, bot)]
    await access.check(feeding, Action.FEED, "plaza")
    await access.check(reading, Action.READ, "show")
    with pytest.raises(Forbidden):
        await access.check(feeding, Action.READ, "show")
    listed = {key.name: key for key in await office.accounts.keys(root)}
    assert listed["danmaku"].threads == [
        ThreadOfKey("plaza", feeds=True, reads=False),
        ThreadOfKey("show", feeds=True, reads=False),
    ]
    assert listed["bot"].threads == [ThreadOfKey("show", feeds=True, reads=True)]
    await office.memberships.admit(root, "plaza", Member("danmaku", "program", "reader"))
    listed = {key.name: key for key in await office.accounts.keys(root)}
    assert listed["danmaku"].threads == [
        ThreadOfKey("plaza", feeds=False, reads=True),
        ThreadOfKey("show", feeds=True, reads=False),
    ]
    assert feed.startswith(f"m3k_{listed['danmaku'].prefix}_")
    with pytest.raises(Taken):
        await office.accounts.add_key(root, "danmaku", [])
    await office.accounts.revoke_key(root, listed["danmaku"].prefix)
    with pytest.raises(NotSignedIn):
        await access.identify(bearer(feed))
    with pytest.raises(UnknownName):
        await office.accounts.revoke_key(root, listed["danmaku"].prefix)
    assert await office.accounts.add_key(root, "danmaku", ["show"]) != feed
    assert len(await noted(town, "key_added")) == 3
    assert await noted(town, "key_revoked") == [("root", listed["danmaku"].prefix, "danmaku")]
    assert feed[-43:] not in str(await town.sql.fetch("SELECT audit::text FROM audit"))


async def test_a_key_for_a_thread_that_is_not_there_is_not_made(access: Access, office: Office, town: Town) -> None:
    root = await operator(access, town)
    await town.thread("show")
    await town.thread("acme.other")
    for threads in (["show", "none"], ["other"], ["acme.other"]):
        with pytest.raises(UnknownThread):
            await office.accounts.add_key(root, "feed", threads)
    assert await office.accounts.keys(root) == []
    assert await noted(town, "key_added") == []


async def test_a_thread_is_given_its_id_and_belongs_to_who_made_it(access: Access, office: Office, town: Town) -> None:
    mei, ann = await person(access, town, "mei", "acme"), await person(access, town, "ann", "acme")
    made = await office.memberships.make_thread(mei)
    assert made == OwnThread(made.thread_id, "private", "owner", 0, None)
    assert made.thread_id.startswith("t-")
    await access.check(mei, Action.ADMIT, f"acme.{made.thread_id}")
    assert await office.memberships.threads_of(mei) == [made]
    assert await office.memberships.threads_of(ann) == []
    opened = await office.memberships.make_thread(mei, visibility="open")
    assert await office.memberships.threads_of(ann) == [OwnThread(opened.thread_id, "open", None, 0, None)]
    with pytest.raises(Forbidden):
        await office.memberships.make_thread(mei, "show")


async def test_an_operator_may_choose_a_threads_id(access: Access, office: Office, town: Town) -> None:
    root = await operator(access, town)
    assert (await office.memberships.make_thread(root, "show")).thread_id == "show"
    assert (await office.memberships.make_thread(at_the_machine("acme"), "show", "open")).role is None
    with pytest.raises(Taken):
        await office.memberships.make_thread(root, "show")
    for thread_id in ("", "acme.show", "a b", "x" * 129, "show\n"):
        with pytest.raises(Unsuitable):
            await office.memberships.make_thread(root, thread_id)
    assert await noted(town, "thread_made") == [("root", "show", "private"), ("command line", "show", "open")]


async def test_members_come_change_and_go(access: Access, office: Office, town: Town) -> None:
    mei, ann = await person(access, town, "mei"), await person(access, town, "ann")
    root = await operator(access, town)
    await town.program("feed")
    await town.thread("show", mei="owner")
    await office.memberships.admit(mei, "show", Member("Ann", "person", "reader"))
    await office.memberships.admit(root, "show", Member("feed", "program", "feeder"))
    with pytest.raises(Forbidden):
        await access.check(ann, Action.SPEAK, "show")
    await access.check(ann, Action.READ, "show")
    await office.memberships.admit(mei, "show", Member("ann", "person", "member"))
    await access.check(ann, Action.SPEAK, "show")
    assert await office.memberships.members("show") == [
        Member("ann", "person", "member"),
        Member("mei", "person", "owner"),
        Member("feed", "program", "feeder"),
    ]
    await office.memberships.dismiss(mei, "show", "ann")
    with pytest.raises(UnknownThread):
        await access.check(ann, Action.READ, "show")
    with pytest.raises(UnknownName):
        await office.memberships.dismiss(mei, "show", "ann")
    assert await noted(town, "member_added") == [
        ("mei", "show", "person ann as reader"),
        ("root", "show", "program feed as feeder"),
        ("mei", "show", "person ann as member"),
    ]
    assert await noted(town, "member_removed") == [("mei", "show", "person ann")]


async def test_a_role_is_given_to_a_member_and_lets_nobody_in(access: Access, office: Office, town: Town) -> None:
    mei = await person(access, town, "mei")
    await town.account("ann")
    await town.thread("show", mei="owner")
    ann = Member("ann", "person", "reader")
    with pytest.raises(NoMember):
        await office.memberships.admit(mei, "show", ann, if_member=True)
    assert await office.memberships.members("show") == [Member("mei", "person", "owner")]
    assert await noted(town, "member_added") == []
    await office.memberships.admit(mei, "show", replace(ann, role="member"))
    for _ in range(2):
        assert await office.memberships.admit(mei, "show", ann, if_member=True) == ann
    assert await office.memberships.members("show") == [ann, Member("mei", "person", "owner")]


async def test_who_is_removed_while_their_role_is_changed_stays_out(access: Access, office: Office, town: Town) -> None:
    one, two = await person(access, town, "one"), await person(access, town, "two")
    await town.account("ann")
    for number in range(20):
        show = f"show-{number}"
        await town.thread(show, one="owner", two="owner", ann="member")
        at_once = (
            office.memberships.admit(one, show, Member("ann", "person", "reader"), if_member=True),
            office.memberships.dismiss(two, show, "ann"),
        )
        changed, dismissed = await asyncio.gather(*at_once, return_exceptions=True)
        assert isinstance(changed, Member | NoMember)
        assert dismissed is None
        assert [member.name for member in await office.memberships.members(show)] == ["one", "two"]


@pytest.mark.parametrize(("kind", "role"), [("person", "feeder"), ("program", "owner")])
async def test_a_person_only_feeds_nothing_and_a_program_owns_nothing(
    access: Access, office: Office, town: Town, kind: MemberKind, role: Role
) -> None:
    root = await operator(access, town)
    await town.account("x")
    await town.program("x")
    await town.thread("show")
    with pytest.raises(Unsuitable):
        await office.memberships.admit(root, "show", Member("x", kind, role))


async def test_a_person_and_a_program_do_not_share_a_name(access: Access, office: Office, town: Town) -> None:
    root = await operator(access, town)
    await office.accounts.add_key(root, "feed", [])
    await office.accounts.add_user(root, "mei")
    with pytest.raises(Taken):
        await office.accounts.add_user(root, "Feed")
    with pytest.raises(Taken):
        await office.accounts.add_key(root, "mei", [])
    await office.accounts.add_key(at_the_machine("acme"), "mei", [])
    (key,) = await office.accounts.keys(root)
    await office.accounts.revoke_key(root, key.prefix)
    assert await office.accounts.add_user(root, "feed")


async def test_a_person_and_a_program_that_come_at_once_do_not_share_a_name(
    access: Access, office: Office, town: Town
) -> None:
    root = await operator(access, town)
    for number in range(20):
        name = f"both-{number}"
        coming = (office.accounts.add_user(root, name), office.accounts.add_key(at_the_machine("default"), name, []))
        told = await asyncio.gather(*coming, return_exceptions=True)
        assert {*map(type, told)} == {str, Taken}


async def test_a_program_that_is_no_member_is_not_dismissed_as_a_person(
    access: Access, office: Office, town: Town
) -> None:
    root = await operator(access, town)
    await town.program("feed")
    await town.thread("show")
    await office.memberships.admit(root, "show", Member("feed", "program", "feeder"))
    with pytest.raises(UnknownName):
        await office.memberships.dismiss(root, "show", "feed")
    await office.memberships.dismiss(root, "show", "feed", "program")
    assert await office.memberships.members("show") == []


async def test_the_last_owner_stays_even_where_two_go_at_once(access: Access, office: Office, town: Town) -> None:
    await town.account("mei")
    await town.account("ann")
    await town.thread("show", mei="owner", ann="owner")
    root = await operator(access, town)
    leaving = [office.memberships.dismiss(root, "show", name) for name in ("mei", "ann")]
    told = await asyncio.gather(*leaving, return_exceptions=True)
    assert sorted(map(type, told), key=str) == sorted([type(None), LastOwner], key=str)
    (last,) = await office.memberships.members("show")
    with pytest.raises(LastOwner):
        await office.memberships.admit(root, "show", Member(last.name, "person", "reader"))
    await office.memberships.admit(root, "show", Member(last.name, "person", "owner"))
    assert await office.memberships.members("show") == [last]


async def test_an_owner_whose_account_is_revoked_does_not_count(access: Access, office: Office, town: Town) -> None:
    mei = await person(access, town, "mei")
    await town.account("ann")
    await town.thread("show", mei="owner", ann="owner")
    await town.sql.execute("UPDATE accounts SET revoked_at = now() WHERE name = 'ann'")
    with pytest.raises(LastOwner):
        await office.memberships.dismiss(mei, "show", "mei")


async def test_a_thread_is_opened_and_closed(access: Access, office: Office, town: Town) -> None:
    mei, ann = await person(access, town, "mei"), await person(access, town, "ann")
    await town.thread("show", mei="owner")
    await office.memberships.change_visibility(mei, "show", "open")
    await access.check(ann, Action.SPEAK, "show")
    await office.memberships.change_visibility(mei, "show", "private")
    with pytest.raises(UnknownThread):
        await access.check(ann, Action.SPEAK, "show")
    assert await noted(town, "visibility_changed") == [("mei", "show", "open"), ("mei", "show", "private")]


async def test_nothing_is_done_to_a_thread_or_with_somebody_that_is_not_there(
    access: Access, office: Office, town: Town
) -> None:
    root = await operator(access, town)
    await town.thread("acme.show")
    for attempt in (
        office.memberships.change_visibility(root, "show", "open"),
        office.memberships.admit(root, "show", Member("root", "person", "owner")),
        office.memberships.dismiss(root, "show", "root"),
    ):
        with pytest.raises(UnknownThread):
            await attempt
    await town.thread("show")
    with pytest.raises(UnknownName):
        await office.memberships.admit(root, "show", Member("nobody", "person", "owner"))
    assert await town.sql.fetchval("SELECT count(*) FROM audit WHERE outcome = 'done'") == 0
