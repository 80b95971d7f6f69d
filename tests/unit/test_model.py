"""The reply in what a model's server sends, which may be anything."""

import json

import httpx2
import openai
import pytest

from services.agent.model import MAX_REPLY, Model, ModelFailed
from tests.support.until import DEADLINE


async def reply_to(answer: object) -> str:
    """What becomes of a server's answer: a page where it is text, or else JSON."""
    if isinstance(answer, str):
        response = httpx2.Response(200, html=answer)
    else:
        response = httpx2.Response(200, content=json.dumps(answer), headers={"Content-Type": "application/json"})
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _: response)) as http:
        client = openai.AsyncOpenAI(base_url="http://model/v1", api_key="key", max_retries=0, http_client=http)
        return await Model(client, "model", DEADLINE).reply([{"role": "user", "content": "hi"}])


def saying(content: object) -> object:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Hello.", "Hello."),
        ("你好 👋", "你好 👋"),
        ("\n  Hello.\n\n  Bye. \n", "Hello.\n\n  Bye."),
        ("Hel\x00lo\x00", "Hello"),
        ("\x00 Hello", "Hello"),
        ("one \ud800 two \udfff", "one ? two ?"),
        pytest.param("a" * MAX_REPLY, "a" * MAX_REPLY, id="as long as may be"),
        pytest.param("a" * (MAX_REPLY + 1), "a" * MAX_REPLY, id="too long"),
        pytest.param(" " * MAX_REPLY + "a", "a", id="long only by its blanks"),
    ],
)
async def test_a_reply_is_made_such_as_the_table_can_keep(content: str, text: str) -> None:
    assert await reply_to(saying(content)) == text


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param("<html>Welcome</html>", id="a page of HTML"),
        pytest.param("", id="nothing"),
        pytest.param(None, id="null"),
        pytest.param([], id="a list"),
        pytest.param({}, id="an object without choices"),
        pytest.param({"choices": None}, id="choices that are null"),
        pytest.param({"choices": []}, id="no choice"),
        pytest.param({"choices": 7}, id="choices that are a number"),
        pytest.param({"choices": {"0": {}}}, id="choices that are an object"),
        pytest.param({"choices": [None]}, id="a choice that is null"),
        pytest.param({"choices": [{}]}, id="a choice without a message"),
        pytest.param({"choices": [{"message": None}]}, id="a message that is null"),
        pytest.param({"choices": [{"message": "Hello."}]}, id="a message that is text"),
        pytest.param({"choices": [{"message": {}}]}, id="a message without content"),
        pytest.param(saying(None), id="content that is null"),
        pytest.param(saying(["Hello."]), id="content in parts"),
        pytest.param(saying(7), id="content that is a number"),
        pytest.param(saying(""), id="empty"),
        pytest.param(saying(" \n\t"), id="blank"),
        pytest.param(saying("\x00 \x00"), id="NULs only"),
    ],
)
async def test_an_answer_without_a_reply_is_told_in_a_sentence(answer: object) -> None:
    with pytest.raises(ModelFailed, match=r"^The model's answer .*[^.]\.$"):
        await reply_to(answer)
