"""What the model has said so far, whole and piece by piece."""

import pytest

from services.agent.spoken import MAX_REPLY, Spoken


def spoken(*pieces: str) -> Spoken:
    said = Spoken(lambda: None)
    for piece in pieces:
        said.add(piece)
    return said


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        pytest.param((), "", id="nothing"),
        pytest.param(("Hello.",), "Hello.", id="at once"),
        pytest.param(("Hel", "", "lo", "."), "Hello.", id="in pieces"),
        pytest.param(("你", "好 ", "👋"), "你好 👋", id="not ASCII"),
        pytest.param(("\n ", " Hello.\n", "\n  Bye.", " \n"), "Hello.\n\n  Bye.", id="blanks around"),
        pytest.param(("Hel\x00", "\x00lo"), "Hello", id="NUL"),
        pytest.param(("\x00 Hello",), "Hello", id="NUL before a blank"),
        pytest.param((" ", "\x00", "\n"), "", id="blanks and NUL only"),
        pytest.param(("a \ud83d\ude00 b",), "a 😀 b", id="a pair of surrogates"),
        pytest.param(("a \ud83d", "\ude00 b"), "a 😀 b", id="a pair in two pieces"),
        pytest.param(("a \ud83d", "", "\ude00 b"), "a 😀 b", id="a pair with nothing between"),
        pytest.param(("a \ud83d", "\x00\ude00 b"), "a 😀 b", id="a pair with NUL between"),
        pytest.param(("\ud83d", "\ude00\ud83d", "\ude00"), "😀😀", id="pairs across pieces"),
        pytest.param(("one \ud800 two \udfff",), "one ? two ?", id="lone surrogates"),
        pytest.param(("one \ud800\n", "two"), "one ?\ntwo", id="a lone half at a line's end"),
        pytest.param(("one \ud800", " two"), "one ? two", id="a lone half at a piece's end"),
        pytest.param(("\ud83d", "\ud83d", "\ude00"), "?😀", id="a lone half before a pair"),
        pytest.param(("one \ud800",), "one ?", id="a lone half at the end"),
        pytest.param(("\ud800",), "?", id="a lone half only"),
    ],
)
def test_what_was_said_is_kept_such_as_the_table_can_keep_it(pieces: tuple[str, ...], text: str) -> None:
    assert spoken(*pieces).text == text


@pytest.mark.parametrize(
    ("pieces", "text", "full"),
    [
        pytest.param(("a" * (MAX_REPLY - 1),), "a" * (MAX_REPLY - 1), False, id="almost as long as may be"),
        pytest.param(("a" * MAX_REPLY,), "a" * MAX_REPLY, True, id="as long as may be"),
        pytest.param(("a" * MAX_REPLY, "b"), "a" * MAX_REPLY, True, id="one more"),
        pytest.param(("a", "b" * MAX_REPLY), "a" + "b" * (MAX_REPLY - 1), True, id="far more"),
        pytest.param(("a" * (MAX_REPLY - 1) + "\ud800",), "a" * (MAX_REPLY - 1) + "?", False, id="half at the end"),
        pytest.param((" " * MAX_REPLY, "\n" * MAX_REPLY, "a"), "a", False, id="long only by its blanks"),
    ],
)
def test_a_reply_is_as_long_as_may_be_and_then_full(pieces: tuple[str, ...], text: str, *, full: bool) -> None:
    said = spoken(*pieces)
    assert (said.text, said.full) == (text, full)


def test_each_part_of_it_is_taken_once() -> None:
    said = spoken("\n ", "one", " ")
    assert said.take_new() == "one "
    assert said.take_new() == ""
    said.add("two \ud83d")
    assert said.take_new() == "two "
    said.add("\ude00 three")
    said.add("\x00")
    assert said.take_new() == "😀 three"
    assert said.text == "one two 😀 three"


def test_parts_add_up_to_a_reply_that_is_cut() -> None:
    said = spoken("a" * (MAX_REPLY - 1))
    parts = said.take_new()
    said.add("bc")
    parts += said.take_new()
    said.add("d")
    assert said.take_new() == ""
    assert parts == said.text


def test_another_attempt_voids_what_was_said() -> None:
    said = spoken("a" * MAX_REPLY)
    said.take_new()
    said.restart()
    assert (said.restarts, said.text, said.full, said.take_new()) == (1, "", False, "")
    said.add(" once more")
    assert (said.text, said.take_new()) == ("once more", "once more")


def test_half_a_pair_of_a_failed_attempt_is_not_joined_to_the_next() -> None:
    said = spoken("a \ud83d")
    said.restart()
    said.add("\ude00")
    assert said.text == "?"


def test_what_was_not_said_is_not_voided() -> None:
    heard = 0

    def hear() -> None:
        nonlocal heard
        heard += 1

    said = Spoken(hear)
    for piece in ("", " ", "\x00", "\ud83d"):
        said.add(piece)
    said.restart()
    assert (said.restarts, heard) == (0, 0)


def test_whoever_listens_is_told_of_all_that_grows_or_is_voided() -> None:
    told: list[tuple[int, str]] = []
    said = Spoken(lambda: told.append((said.restarts, said.take_new())))
    for piece in (" ", "one", "", " two"):
        said.add(piece)
    said.restart()
    said.add("three")
    assert told == [(0, "one"), (0, " two"), (1, ""), (1, "three")]
