"""The demo model, asked by a client that was written for others."""

from collections.abc import AsyncIterator

import httpx2
import openai
import pytest

from m3.settings import Settings
from m3.web import bind, serve
from services.demo_model import demo_model
from services.demo_model.stories import story_for
from tests.support.until import DEADLINE


@pytest.fixture
async def address() -> AsyncIterator[str]:
    with bind("127.0.0.1", 0) as sock:
        async with serve(demo_model(), sock, Settings(), grace=1) as address:
            yield address


@pytest.fixture
async def client(address: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0, timeout=DEADLINE) as client:
        yield client


async def test_it_lists_itself(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["demo"]


async def test_it_says_that_it_is_a_demo_and_repeats_what_was_said_last(client: openai.AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(
        model="demo",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "reply"},
            {"role": "user", "content": "你好 🐈"},
        ],
    )
    (choice,) = completion.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == "(demo model, no LLM is connected) I heard: 你好 🐈"
    assert (choice.finish_reason, completion.model, completion.object) == ("stop", "demo", "chat.completion")
    assert completion.usage
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens


async def test_it_repeats_only_the_beginning_of_a_long_message(client: openai.AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "x" * 10_000}]
    )
    text = completion.choices[0].message.content
    assert text
    assert text.endswith("x…")
    assert text.count("x") == 200


@pytest.mark.parametrize("said", ["one", "several words  and\ntwo blanks ", "", "你好 🐈"])
async def test_what_it_streams_adds_up_to_what_it_says_at_once(client: openai.AsyncOpenAI, said: str) -> None:
    plain = await client.chat.completions.create(model="demo", messages=[{"role": "user", "content": said}])
    stream = await client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": said}], stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == plain.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}


async def test_a_stream_counts_its_tokens_at_its_end_where_it_is_asked_to(client: openai.AsyncOpenAI) -> None:
    plain = await client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "one two"}])
    stream = await client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "one two"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    *said, count = [chunk async for chunk in stream]
    assert (count.choices, count.usage) == ([], plain.usage)
    assert all(chunk.choices and chunk.usage is None for chunk in said)


async def test_what_it_does_not_know_makes_no_difference(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "hi"}], stream=True, temperature=0.5, max_tokens=7
    )
    chunks = [chunk async for chunk in stream]
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"messages": []}',
        '{"messages": "hi"}',
        '{"messages": [7]}',
        '{"messages": [{"content": "nobody"}]}',
        '{"messages": [{"role": "user", "content": 7}]}',
        '{"messages": [{"role": "user", "content": "hi"}], "stream": "perhaps"}',
        '{"messages": [{"role": "user", "content": "hi"}], "stream": true, "stream_options": "usage"}',
        '{"messages": NaN}',
        "[" * 30_000,
    ],
)
async def test_a_request_that_is_none_is_refused(address: str, body: str) -> None:
    async with httpx2.AsyncClient(base_url=address, timeout=DEADLINE) as http:
        answer = await http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500, answer.text


async def test_half_of_a_surrogate_pair_comes_back_as_it_went_in(address: str) -> None:
    async with httpx2.AsyncClient(base_url=address, timeout=DEADLINE) as http:
        answer = await http.post(
            "/v1/chat/completions",
            content='{"model": "\\ud83d", "messages": [{"role": "user", "content": "\\ud83d"}]}',
            headers={"Content-Type": "application/json"},
        )
        assert answer.json()["model"] == "\ud83d"
        assert answer.json()["choices"][0]["message"]["content"].endswith("I heard: \ud83d")


async def test_a_refusal_reaches_a_client_as_one(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError):
        await client.chat.completions.create(model="demo", messages=[])
    with pytest.raises(openai.NotFoundError):
        await client.embeddings.create(model="demo", input="hi")


STORIES = {"[user] Tell me a STORY, please": "# The lighthouse", "给我讲个故事吧": "# 会数数的灯塔"}


@pytest.mark.parametrize("said", STORIES)
async def test_asked_for_a_story_it_tells_one_in_that_language_with_all_of_markdown(
    client: openai.AsyncOpenAI, said: str
) -> None:
    completion = await client.chat.completions.create(model="demo", messages=[{"role": "user", "content": said}])
    text = completion.choices[0].message.content
    assert text
    assert text.startswith(f"(demo model, no LLM is connected)\n\n{STORIES[said]}")
    for mark in ("\n1. ", "**", "\n```python\n", "    log.append", "](https://"):
        assert mark in text


@pytest.mark.parametrize("said", ["the history of it", "stor y", "a storyboard", "故 事"])
async def test_what_only_looks_like_a_story_is_repeated(client: openai.AsyncOpenAI, said: str) -> None:
    completion = await client.chat.completions.create(model="demo", messages=[{"role": "user", "content": said}])
    assert completion.choices[0].message.content == f"(demo model, no LLM is connected) I heard: {said}"


@pytest.mark.parametrize("said", STORIES)
async def test_a_story_is_told_piece_by_piece_and_can_be_broken_off(client: openai.AsyncOpenAI, said: str) -> None:
    plain = await client.chat.completions.create(model="demo", messages=[{"role": "user", "content": said}])
    stream = await client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": said}], stream=True
    )
    told = ""
    async for chunk in stream:
        told += chunk.choices[0].delta.content or ""
        if len(told) > 80:
            break
    await stream.close()
    whole = plain.choices[0].message.content
    assert whole
    assert whole.startswith(told)
    assert len(told) < len(whole) / 2


@pytest.mark.parametrize("said", STORIES)
def test_a_story_takes_some_ten_seconds_and_loses_nothing_in_pieces(said: str) -> None:
    story = story_for(said)
    assert story
    assert "".join(story.pieces()) == story.text
    assert 8 < len(story.pieces()) / story.pace < 20
