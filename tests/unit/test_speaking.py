"""As whom somebody speaks."""

from uuid import uuid4

import pytest

from m3.access.principals import ANYONE, Kind, Principal
from m3.access.rules import Action
from m3.access.speaking import action_of, author_of, sender_of, source_of
from m3.errors import Forbidden
from m3.events import ANYONE as NO_NAME
from m3.events import OutsideSource

ACCOUNTS: list[Kind] = ["person", "operator"]
SOURCES: list[OutsideSource] = ["user", "api"]


def principal(kind: Kind) -> Principal:
    return Principal(kind, id=uuid4(), name="somebody")


@pytest.mark.parametrize("kind", ACCOUNTS)
def test_who_has_an_account_speaks_as_a_person_whatever_the_door_takes_messages_for(kind: Kind) -> None:
    assert [source_of(principal(kind), source, told=False) for source in SOURCES] == ["user", "user"]
    assert source_of(principal(kind), "user", told=True) == "user"


def test_who_has_a_producer_key_speaks_as_a_program_whatever_the_door_takes_messages_for() -> None:
    assert [source_of(principal("program"), source, told=False) for source in SOURCES] == ["api", "api"]
    assert source_of(principal("program"), "api", told=True) == "api"


@pytest.mark.parametrize(("kind", "source"), [("person", "api"), ("operator", "api"), ("program", "user")])
def test_nobody_passes_for_the_other(kind: Kind, source: OutsideSource) -> None:
    with pytest.raises(Forbidden, match="producer key"):
        source_of(principal(kind), source, told=True)


def test_in_an_open_room_what_is_said_of_the_source_is_believed() -> None:
    for told in (True, False):
        assert [source_of(ANYONE, source, told=told) for source in SOURCES] == SOURCES


def test_people_speak_and_programs_feed() -> None:
    assert (action_of("user"), action_of("api")) == (Action.SPEAK, Action.FEED)


def test_no_two_principals_share_their_keys_under_any_name() -> None:
    one, other = principal("person"), principal("person")
    assert sender_of(one, "show") == sender_of(one, "show") != sender_of(one, "anyone")
    assert sender_of(one, "show") != sender_of(other, "show")


def test_in_an_open_room_senders_are_the_names_that_they_give() -> None:
    assert sender_of(ANYONE, "show") == "show"


def test_in_an_open_room_a_message_is_of_whom_its_sender_calls_itself() -> None:
    assert author_of(ANYONE, "小明") == "小明"
    assert author_of(ANYONE, NO_NAME) is None


@pytest.mark.parametrize("kind", [*ACCOUNTS, "program"])
def test_who_is_known_is_the_author_whatever_they_call_themselves(kind: Kind) -> None:
    assert author_of(principal(kind), "the queen") == author_of(principal(kind), NO_NAME) == "somebody"
