"""How many tokens a text has, wherever the tables of tokens are."""

import asyncio
from collections.abc import Callable
from threading import Event, Thread, current_thread

import pytest
import tiktoken
from structlog.testing import capture_logs

from services.agent import tokens
from services.agent.tokens import LONGEST_COUNTED, counter_of, estimate
from tests.support.until import until

#: A table without a single merge, so that each byte is a token.
BYTES = tiktoken.Encoding(
    "bytes",
    pat_str=r"(?s:.)",
    mergeable_ranks={bytes([byte]): byte for byte in range(256)},
    special_tokens={"<|endoftext|>": 256},
)

Load = Callable[[str], tiktoken.Encoding]


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Callable[[Load], None]:
    return lambda load: monkeypatch.setattr(tiktoken, "encoding_for_model", load)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0), ("a", 1), ("four", 1), ("fives", 2), ("你好", 2), ("你好 you", 3), ("é", 1), ("😀", 1), ("a\ud800", 2)],
)
def test_an_estimate_takes_four_ascii_characters_or_one_other_for_a_token(text: str, expected: int) -> None:
    assert estimate(text) == expected


async def test_a_model_that_is_known_is_counted_by_its_own_table(tables: Callable[[Load], None]) -> None:
    asked: list[str] = []

    def load(model: str) -> tiktoken.Encoding:
        asked.append(model)
        return BYTES

    tables(load)
    count = await counter_of("gpt-4o")
    assert asked == ["gpt-4o"]
    assert count("") == 0
    assert count("four") == 4
    assert count("你好") == 6


async def test_what_is_a_special_token_elsewhere_is_plain_text_in_a_message(tables: Callable[[Load], None]) -> None:
    tables(lambda _: BYTES)
    count = await counter_of("gpt-4o")
    assert count("<|endoftext|>") == len("<|endoftext|>")


async def test_half_of_a_surrogate_pair_can_be_counted(tables: Callable[[Load], None]) -> None:
    tables(lambda _: BYTES)
    count = await counter_of("gpt-4o")
    assert count("\ud800") > 0


async def test_what_is_very_long_is_counted_in_part_and_estimated_from_there(tables: Callable[[Load], None]) -> None:
    tables(lambda _: BYTES)
    count = await counter_of("gpt-4o")
    assert count("a" * LONGEST_COUNTED) == LONGEST_COUNTED
    assert count("a" * (LONGEST_COUNTED + 4000)) == LONGEST_COUNTED + 1000


@pytest.mark.parametrize("model", ["demo", "qwen3", "", "a/b c"])
async def test_a_model_that_nobody_has_a_table_of_is_estimated_and_that_is_no_news(model: str) -> None:
    with capture_logs() as logs:
        count = await counter_of(model)
    assert count is estimate
    assert logs == []


@pytest.mark.parametrize("error", [OSError("no network"), ValueError("another hash"), RuntimeError("anything")])
async def test_a_table_that_cannot_be_had_leaves_an_estimate_and_one_warning(
    tables: Callable[[Load], None], error: Exception
) -> None:
    def load(_: str) -> tiktoken.Encoding:
        raise error

    tables(load)
    with capture_logs() as logs:
        count = await counter_of("gpt-4o")
    assert count is estimate
    reason = f"{type(error).__name__}: {error}"
    assert logs == [{"event": "tokens are estimated", "log_level": "warning", "model": "gpt-4o", "reason": reason}]


class Hanging:
    """A fetch that does not end before it is told to."""

    def __init__(self) -> None:
        self.ended = Event()
        self.thread: Thread | None = None

    def load(self, _: str) -> tiktoken.Encoding:
        self.thread = current_thread()
        self.ended.wait()
        return BYTES


async def test_a_table_that_does_not_come_in_time_is_not_waited_for(
    tables: Callable[[Load], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "LOAD_TIMEOUT", 0.05)
    hanging = Hanging()
    tables(hanging.load)
    try:
        with capture_logs() as logs:
            count = await counter_of("gpt-4o")
        assert count is estimate
        assert [entry["reason"] for entry in logs] == [
            "TimeoutError: no table of the model's tokens within 0.05 seconds"
        ]
        assert hanging.thread is not None
        assert hanging.thread.daemon, "or it would keep the process from ending"
    finally:
        hanging.ended.set()
    thread = hanging.thread
    await until(lambda: not thread.is_alive())


def test_a_table_that_comes_after_the_end_of_everything_harms_nobody(
    tables: Callable[[Load], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "LOAD_TIMEOUT", 0.05)
    hanging = Hanging()
    tables(hanging.load)
    try:
        assert asyncio.run(counter_of("gpt-4o")) is estimate
    finally:
        hanging.ended.set()
    assert hanging.thread is not None
    hanging.thread.join(timeout=20)
    assert not hanging.thread.is_alive()
