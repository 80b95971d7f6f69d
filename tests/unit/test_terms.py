"""What a message is found by."""

import pytest

from m3.sealing.terms import MAX_TERMS, MAX_WORD, keyed_number, packed, plain_number, unpacked, words, words_asked_for


@pytest.mark.parametrize(
    ("text", "found_by"),
    [
        ("Hello, WORLD! hello", ["hello", "world"]),
        ("it's 3.14 snake_case", ["it", "s", "3", "14", "snake", "case"]),
        ("Straße ÉCOLE", ["strasse", "école"]),
        ("\uff26\uff55\uff4c\uff4c \ufb01ne", ["full", "fine"]),
        ("Καφές", ["καφέσ"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("שָׁלוֹם", ["שָׁלוֹם"]),
        ("你好", ["你", "好", "你好"]),
        ("C语言", ["c", "语", "言", "语言"]),
        ("ｶﾞｽ", ["ガ", "ス", "ガス"]),
        ("한국어", ["한", "국", "어", "한국", "국어"]),
        ("!!! … 😀", []),
        ("", []),
    ],
)
def test_a_text_is_found_by_its_words(text: str, found_by: list[str]) -> None:
    assert words(text) == found_by


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("WORLD hello", "Hello, world"),
        ("strasse", "Die STRASSE, die Straße"),
        ("école", "E\u0301COLE"),
        ("好", "你好吗"),
        ("好吗", "你好吗"),
        ("你好吗 song", "Song: 你好吗!"),
        ("ガス", "ｶﾞｽ"),
    ],
)
def test_what_is_asked_for_is_in_the_text_however_it_is_written(asked: str, text: str) -> None:
    assert set(words_asked_for(asked)) <= set(words(text))


@pytest.mark.parametrize(("asked", "text"), [("wor", "world"), ("你吗", "你好吗"), ("好你", "你好")])
def test_what_is_not_in_the_text_is_not_found(asked: str, text: str) -> None:
    assert not set(words_asked_for(asked)) <= set(words(text))


def test_a_long_text_is_found_by_its_first_words_and_a_long_word_by_its_beginning() -> None:
    many = [f"w{number}" for number in range(2 * MAX_TERMS)]
    assert words(" ".join(many)) == many[:MAX_TERMS]
    assert words(" ".join(f"é{word}" for word in many)) == [f"é{word}" for word in many[:MAX_TERMS]]
    assert words("x" * 1000) == words_asked_for("x" * 500) == ["x" * MAX_WORD]


def test_a_word_has_other_numbers_in_each_thread_and_with_each_key() -> None:
    numbers = [
        plain_number("t"),
        plain_number("u"),
        plain_number("acme.t"),
        keyed_number(b"1" * 32),
        keyed_number(b"2" * 32),
    ]
    assert len({number("hello") for number in numbers}) == 5
    assert [number("hello") for number in numbers] == [number("hello") for number in numbers]
    assert all(-(2**63) <= number(word) < 2**63 for number in numbers for word in ("hello", "你好", "x"))


def test_the_numbers_of_words_stay_what_they_are() -> None:
    """They are in tables."""
    assert (plain_number("t")("hello"), keyed_number(b"k" * 32)("hello")) == (
        -3509491616695275149,
        -6552473488482936645,
    )


def test_numbers_travel_packed() -> None:
    numbers = (0, -1, 2**63 - 1, -(2**63))
    assert unpacked(packed(numbers)) == numbers
    assert len(packed(numbers)) == 32
