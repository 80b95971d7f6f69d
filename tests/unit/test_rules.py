"""Who may do what: the whole table, written down once more, as a person would."""

from typing import get_args

import pytest

from m3.access.principals import Kind
from m3.access.rules import (
    OPEN_TO_ALL,
    ROLES,
    ROUTES,
    SOCKET,
    SPEAKS_AS,
    Action,
    Role,
    Standing,
    about_a_thread,
    better_role,
    finds,
    may,
    standing_of,
)

STANDINGS: list[Standing | None] = ["owner", "member", "reader", "feeder", "guest", None]

#: In a thread, by kind and standing. What is not here is refused.
IN_A_THREAD: dict[Kind, dict[Standing | None, str]] = {
    "person": {
        "owner": "READ SPEAK CANCEL RETRY CONFIGURE SEE_MEMBERS ADMIT LEAVE",
        "member": "READ SPEAK CANCEL RETRY SEE_MEMBERS LEAVE",
        "reader": "READ SEE_MEMBERS LEAVE",
        "feeder": "",
        "guest": "READ SPEAK CANCEL RETRY",
        None: "",
    },
    "operator": {
        "owner": "READ SPEAK CANCEL RETRY CONFIGURE SEE_MEMBERS ADMIT ADMIT_PROGRAM LEAVE",
        "member": "READ SPEAK CANCEL RETRY CONFIGURE SEE_MEMBERS ADMIT ADMIT_PROGRAM LEAVE",
        "reader": "READ SPEAK CANCEL RETRY CONFIGURE SEE_MEMBERS ADMIT ADMIT_PROGRAM LEAVE",
        "feeder": "READ SPEAK CANCEL RETRY CONFIGURE SEE_MEMBERS ADMIT ADMIT_PROGRAM LEAVE",
        "guest": "READ SPEAK CANCEL RETRY CONFIGURE SEE_MEMBERS ADMIT ADMIT_PROGRAM LEAVE",
        None: "READ SPEAK CANCEL RETRY CONFIGURE SEE_MEMBERS ADMIT ADMIT_PROGRAM LEAVE",
    },
    "program": {
        "owner": "READ",
        "member": "READ FEED",
        "reader": "READ",
        "feeder": "FEED",
        "guest": "READ",
        None: "",
    },
    "anyone": {
        "owner": "READ SPEAK FEED CANCEL RETRY CONFIGURE SEE_MEMBERS ADMIT ADMIT_PROGRAM LEAVE",
        "member": "READ SPEAK FEED CANCEL RETRY CONFIGURE SEE_MEMBERS ADMIT ADMIT_PROGRAM LEAVE",
        "reader": "READ SPEAK FEED CANCEL RETRY CONFIGURE SEE_MEMBERS ADMIT ADMIT_PROGRAM LEAVE",
        "feeder": "READ SPEAK FEED CANCEL RETRY CONFIGURE SEE_MEMBERS ADMIT ADMIT_PROGRAM LEAVE",
        "guest": "READ SPEAK FEED CANCEL RETRY CONFIGURE SEE_MEMBERS ADMIT ADMIT_PROGRAM LEAVE",
        None: "READ SPEAK FEED CANCEL RETRY CONFIGURE SEE_MEMBERS ADMIT ADMIT_PROGRAM LEAVE",
    },
}

#: Without a thread, by kind.
WITHOUT_A_THREAD: dict[Kind, str] = {
    "person": "PROBE SIGN_IN BE SIGN_OUT CHANGE_PASSWORD MAKE_THREAD JOIN",
    "operator": "PROBE SIGN_IN BE SIGN_OUT CHANGE_PASSWORD MAKE_THREAD JOIN OPERATE",
    "program": "PROBE SIGN_IN BE",
    "anyone": "PROBE SIGN_IN",
}

CASES = [(kind, standing, action) for kind in get_args(Kind) for standing in STANDINGS for action in Action]


@pytest.mark.parametrize(("kind", "standing", "action"), CASES)
def test_the_rules_are_these(kind: Kind, standing: Standing | None, action: Action) -> None:
    granted = IN_A_THREAD[kind][standing] if about_a_thread(action) else WITHOUT_A_THREAD[kind]
    assert may(kind, action, standing) == (action.name in granted.split())


def test_every_action_is_granted_to_somebody() -> None:
    granted = " ".join(
        [*(line for lines in IN_A_THREAD.values() for line in lines.values()), *WITHOUT_A_THREAD.values()]
    )
    assert set(granted.split()) == {action.name for action in Action}


@pytest.mark.parametrize(("kind", "standing"), [(kind, standing) for kind in get_args(Kind) for standing in STANDINGS])
def test_who_has_no_standing_finds_no_thread_but_operators_do(kind: Kind, standing: Standing | None) -> None:
    assert finds(kind, standing) == (standing is not None or kind in {"operator", "anyone"})


def test_nobody_does_anything_in_a_thread_that_they_do_not_find() -> None:
    assert not [case for case in CASES if may(*_told(case)) and about_a_thread(case[2]) and not finds(case[0], case[1])]


def test_what_a_route_or_a_frame_asks_for_is_about_a_thread_or_not_whichever_it_does() -> None:
    for actions in (*ROUTES.values(), *SOCKET.values()):
        assert len({about_a_thread(action) for action in actions}) == 1


def _told(case: tuple[Kind, Standing | None, Action]) -> tuple[Kind, Action, Standing | None]:
    kind, standing, action = case
    return kind, action, standing


def test_an_open_thread_has_every_account_as_a_guest_and_no_program() -> None:
    for kind in get_args(Kind):
        assert standing_of(kind, None, "private") is None
        assert standing_of(kind, "reader", "open") == "reader"
        assert standing_of(kind, None, "open") == (None if kind == "program" else "guest")


def test_people_see_to_threads_and_programs_feed_them() -> None:
    assert {"person": {"owner", "member", "reader"}, "program": {"feeder", "member", "reader"}} == ROLES
    assert SPEAKS_AS == {"person": "user", "operator": "user", "program": "api"}
    assert {action.name for action in OPEN_TO_ALL} == {"PROBE", "SIGN_IN"}


@pytest.mark.parametrize(
    ("held", "offered", "better"),
    [
        (None, "reader", "reader"),
        ("reader", "reader", "reader"),
        ("reader", "member", "member"),
        ("member", "reader", "member"),
        ("owner", "member", "owner"),
    ],
)
def test_of_two_roles_that_is_better_which_may_more(held: Role | None, offered: Role, better: Role) -> None:
    assert better_role(held, offered) == better
