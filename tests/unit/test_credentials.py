"""Producer keys, invites, refresh tokens, tickets, and names."""

from uuid import uuid4

import pytest

from m3.access.credentials import (
    digest,
    is_ticket,
    new_invite,
    new_key,
    new_ticket,
    prefix_of,
    prefix_of_invite,
    refresh_token,
    sign_in_of,
)
from m3.access.names import is_proper, known_as, name_like, proper_name
from m3.errors import Unsuitable


def test_a_key_tells_its_prefix() -> None:
    prefix, key = new_key()
    assert len(prefix) == 8
    assert prefix_of(key) == prefix
    assert new_key()[1] != key


def test_an_invite_tells_its_prefix() -> None:
    prefix, invite = new_invite()
    assert prefix_of_invite(invite) == prefix
    assert invite.startswith(f"m3i_{prefix}_")


def test_a_refresh_token_tells_its_sign_in() -> None:
    sign_in = uuid4()
    assert sign_in_of(refresh_token(sign_in)) == sign_in
    assert refresh_token(sign_in) != refresh_token(sign_in)


def test_a_ticket_is_known_for_one() -> None:
    assert is_ticket(new_ticket())
    assert new_ticket() != new_ticket()


@pytest.mark.parametrize(
    "change", [lambda text: text + "x", lambda text: text[:-1], lambda text: text + "\n", str.upper]
)
def test_what_is_not_quite_one_is_none(change: object) -> None:
    assert callable(change)
    assert prefix_of(change(new_key()[1])) is None
    assert prefix_of_invite(change(new_invite()[1])) is None
    assert sign_in_of(change(refresh_token(uuid4()))) is None
    assert not is_ticket(change(new_ticket()))


def test_nothing_passes_for_a_credential_of_another_kind() -> None:
    made = {"key": new_key()[1], "invite": new_invite()[1], "refresh": refresh_token(uuid4()), "ticket": new_ticket()}
    known = {"key": prefix_of, "invite": prefix_of_invite, "refresh": sign_in_of, "ticket": is_ticket}
    for kind, recognize in known.items():
        assert [name for name, credential in made.items() if recognize(credential)] == [kind]
    assert len({digest(credential) for credential in made.values()}) == 4


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("Mei", "mei"),
        ("STRASSE", "strasse"),
        ("straße", "strasse"),
        ("\uff2d\uff45\uff49", "mei"),
        ("e\u0301va", "\u00e9va"),
        ("弹幕", "弹幕"),
        ("Лидия7", "лидия7"),
        ("ひらがなカタカナー漢字", "ひらがなカタカナー漢字"),
        ("한국漢字", "한국漢字"),
        ("nguyễn-đức", "nguyễn-đức"),
        ("mei@example.com", "mei@example.com"),
        ("danmaku-2_b+c", "danmaku-2_b+c"),
    ],
)
def test_a_name_has_one_form(typed: str, kept: str) -> None:
    assert proper_name(typed) == kept == known_as(kept)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "-x", "a/b", "a b", " a", "a\n", "a\x00", "\ud800", "a\u202eb", "x" * 65, "a?b", "a,b", "<a>"],
)
def test_nobody_is_called_what_would_mislead_or_mean_something_in_a_path(name: str) -> None:
    with pytest.raises(Unsuitable):
        proper_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "admin\u3164",  # a letter that is not seen
        "ad\u115fmin",
        "\u1160",
        "ad\u200bmin",
        "ad\u00admin",
        "admin\ufe0f",
        "\u0430dmin",  # Cyrillic
        "\u03b1dmin",  # Greek
        "\u0251dmin",  # of phonetic writing
        "adm\u01c0n",
        "adm\u3163n",  # Hangul
        "adm\u4e28n",  # a stroke
        "admin\u09ea",  # a digit that looks like another
        "\u0645\u062d\u0640\u0645\u062f",  # lengthened
        "admin\u02bc",
    ],
)
def test_no_name_has_what_is_not_seen_or_mixes_scripts(name: str) -> None:
    with pytest.raises(Unsuitable):
        proper_name(name)


@pytest.mark.parametrize("name", ["\u963fmay", "tom\u54e5", "\u30df\u30ab-chan", "kim\uae40"])
def test_latin_letters_go_with_east_asian_ones(name: str) -> None:
    assert proper_name(name) == name


def test_no_character_that_unicode_would_have_ignored_is_in_a_name() -> None:
    blocks = "ad 34f 61c 115f-1160 17b4-17b5 180b-180f 200b-200f 202a-202e 2060-206f 3164 fe00-fe0f feff ffa0 fff0-fff8"
    beyond = "1bca0-1bca3 1d173-1d17a e0000-e0fff"
    for block in f"{blocks} {beyond}".split():
        first, _, last = block.partition("-")
        for number in range(int(first, 16), int(last or first, 16) + 1):
            assert not is_proper(known_as(f"\uac00{chr(number)}")), hex(number)


@pytest.mark.parametrize(
    ("candidates", "name"),
    [
        (("Mei",), "mei"),
        (("mei wang", "mei@example.com"), "mei-wang"),
        (("", "mei@example.com"), "mei@example.com"),
        (("///", "auth0|123"), "auth0-123"),
        (("x" * 255,), "x" * 48),
        (("\u0430dmin", "mei@example.com"), "mei@example.com"),
        (("\u0430dmin", "admin\u3164"), "user-1a2b3c4d"),
        (("\x00", "\ud800"), "user-1a2b3c4d"),
        ((), "user-1a2b3c4d"),
    ],
)
def test_a_name_from_elsewhere_becomes_one_that_can_be_given(candidates: tuple[str, ...], name: str) -> None:
    assert name_like(candidates, otherwise="user-1a2b3c4d") == name == proper_name(name)
