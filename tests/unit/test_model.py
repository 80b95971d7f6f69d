"""The reply in what a model's server sends, which may be anything."""

import json
from collections.abc import Iterator

import httpx2
import openai
import pytest
import stamina

from services.agent.model import ContextTooLong, Model, ModelFailed, Usage
from services.agent.spoken import MAX_REPLY, Spoken

USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """Between attempts."""
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


def silently() -> Spoken:
    return Spoken(lambda: None)


async def heard(
    response: httpx2.Response, spoken: Spoken | None = None, *, attempts: int = 1, open_end: bool = False
) -> tuple[str, Usage | None]:
    """What is heard of a reply, and what the server counted."""
    spoken = spoken or silently()
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _: response)) as http:
        client = openai.AsyncOpenAI(base_url="http://model/v1", api_key="key", max_retries=0, http_client=http)
        model = Model(client, "model", attempts=attempts, open_end=open_end)
        usage = await model.reply([{"role": "user", "content": "hi"}], spoken)
    return spoken.text, usage


def whole(answer: object) -> httpx2.Response:
    """An answer in one piece: a page where it is text, or else JSON."""
    if isinstance(answer, str):
        return httpx2.Response(200, html=answer)
    return httpx2.Response(200, content=json.dumps(answer), headers={"Content-Type": "application/json"})


def stream(*events: object, content_type: str = "text/event-stream; charset=utf-8") -> httpx2.Response:
    """An answer piece by piece: texts are data as they are."""
    data = [event if isinstance(event, str) else json.dumps(event) for event in events]
    body = "".join(f"data: {line}\n\n" for line in data)
    return httpx2.Response(200, content=body.encode(), headers={"Content-Type": content_type})


def saying(content: object, **more: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": content} | more}]}


def delta(finish_reason: object = None, /, **fields: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish_reason}]}


END = delta("stop")
DONE = "[DONE]"


# ---- The reply


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Hello.", "Hello."),
        ("你好 👋", "你好 👋"),
        ("\n  Hello.\n\n  Bye. \n", "Hello.\n\n  Bye."),
        ("Hel\x00lo\x00", "Hello"),
        ("one \ud800 two \udfff", "one ? two ?"),
        pytest.param("a" * (MAX_REPLY + 1), "a" * MAX_REPLY, id="too long"),
        pytest.param(" " * MAX_REPLY + "a", "a", id="long only by its blanks"),
    ],
)
async def test_a_reply_is_made_such_as_the_table_can_keep(content: str, text: str) -> None:
    assert (await heard(whole(saying(content))))[0] == text
    assert (await heard(stream(delta(content=content), END, DONE)))[0] == text


async def test_the_servers_count_of_tokens_comes_with_the_reply() -> None:
    counted = {"choices": [], "usage": USAGE}
    streamed = stream(delta(content="Hello "), delta(content="you."), END, counted, DONE)
    at_once = whole(saying("Hello you.") | {"usage": USAGE})
    for response in (streamed, at_once):
        assert await heard(response) == ("Hello you.", Usage(7, 2))


@pytest.mark.parametrize(
    "usage",
    [
        None,
        7,
        [],
        {},
        {"prompt_tokens": 7},
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": "7", "completion_tokens": "2"},
        {"prompt_tokens": 7, "completion_tokens": -2},
        {"prompt_tokens": 7.5, "completion_tokens": 2},
        {"prompt_tokens": 10**30, "completion_tokens": 2},
    ],
)
async def test_what_is_no_count_of_tokens_is_none(usage: object) -> None:
    said = [delta(content="Hello."), END]
    assert await heard(stream(*said, {"choices": [], "usage": usage}, DONE)) == ("Hello.", None)
    assert await heard(whole(saying("Hello.") | {"usage": usage})) == ("Hello.", None)


@pytest.mark.parametrize(
    "between",
    [
        pytest.param(delta(reasoning_content="Let me think."), id="reasoning"),
        pytest.param(delta(reasoning="Let me think.", content=None), id="reasoning beside null"),
        pytest.param(delta(content=""), id="no text"),
        pytest.param(delta(content=7), id="a number"),
        pytest.param(delta(content=["?"]), id="parts"),
        pytest.param(delta(tool_calls=[{"index": 0}]), id="a tool call"),
        pytest.param({"choices": [{"index": 0, "delta": None}]}, id="a delta that is null"),
        pytest.param({"choices": [{"index": 0, "delta": "?"}]}, id="a delta that is text"),
        pytest.param({"choices": [{"index": 0}]}, id="a choice without a delta"),
        pytest.param({"choices": [None]}, id="a choice that is null"),
        pytest.param({"choices": "?"}, id="choices that are text"),
        pytest.param({"choices": {}}, id="choices that are an object"),
        pytest.param({"choices": []}, id="no choice"),
        pytest.param({}, id="an object without choices"),
        pytest.param({"error": None}, id="no error"),
        pytest.param([], id="a list"),
        pytest.param(None, id="null"),
        pytest.param(7, id="a number alone"),
    ],
)
async def test_a_piece_without_text_is_passed_over(between: object) -> None:
    text, _ = await heard(stream(between, delta(content="Hel"), between, delta(content="lo."), between, END, DONE))
    assert text == "Hello."


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(": ping\n\ndata: {chunk}\n\n: ping\n\ndata: {end}\n\ndata: [DONE]\n\n", id="comments"),
        pytest.param("data:{chunk}\n\ndata:{end}\n\n", id="no blank after the colon"),
        pytest.param("data: {chunk}\r\n\r\ndata: {end}\r\n\r\ndata: [DONE]\r\n\r\n", id="lines that end in CRLF"),
        pytest.param("event: message\nid: 1\ndata: {chunk}\n\ndata: {end}\n\n", id="events with names"),
        pytest.param("data: {chunk}\n\ndata: {end}\n\ndata: [DONE]", id="no end of the last line"),
        pytest.param("data: {chunk}\n\ndata: {end}\n\nwhat else?", id="rubbish at the end"),
        pytest.param("data: {chunk}\n\ndata: {end}\n\ndata: {{\n\n", id="broken JSON after the end"),
    ],
)
@pytest.mark.parametrize("content_type", ["text/event-stream", "text/plain; charset=utf-8", ""])
async def test_a_stream_is_understood_however_it_is_written(body: str, content_type: str) -> None:
    content = body.format(chunk=json.dumps(delta(content="Hello.")), end=json.dumps(END)).encode()
    headers = {"Content-Type": content_type} if content_type else {}
    assert (await heard(httpx2.Response(200, content=content, headers=headers)))[0] == "Hello."


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter", "eos"])
async def test_a_reply_ends_for_whatever_reason(reason: str) -> None:
    assert (await heard(stream(delta(content="Hello"), delta(reason), DONE)))[0] == "Hello"


# ---- What is no reply


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
    ],
)
async def test_an_answer_of_another_shape_is_not_understood(answer: object) -> None:
    spoken = silently()
    with pytest.raises(ModelFailed, match=r"^The model's answer was not understood\.$"):
        await heard(whole(answer), spoken, attempts=3)
    assert spoken.attempts == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"data: {\n\n", id="broken JSON"),
        pytest.param(b"data: \n\n", id="no JSON"),
        pytest.param(b"data: \xff\n\n", id="no UTF-8"),
        pytest.param(b"data: " + b"[" * 100_000 + b"\n\n", id="deeply nested lists"),
    ],
)
async def test_a_stream_of_something_else_is_not_understood(body: bytes) -> None:
    response = httpx2.Response(200, content=body, headers={"Content-Type": "text/event-stream"})
    with pytest.raises(ModelFailed, match=r"^The model's answer was not understood\.$"):
        await heard(response)


@pytest.mark.parametrize(
    ("content", "sentence", "attempts"),
    [
        (None, "was empty", 3),
        ("", "was empty", 3),
        (" \n\t", "was empty", 3),
        ("\x00 \x00", "was empty", 3),
        (7, "had no text", 1),
        (["Hello."], "had no text", 1),
    ],
)
async def test_an_answer_without_text_is_told_in_a_sentence(content: object, sentence: str, attempts: int) -> None:
    for response in (whole(saying(content)), stream(delta(content=content), END, DONE)):
        spoken = silently()
        with pytest.raises(ModelFailed, match=rf"^The model's answer {sentence}\.$"):
            await heard(response, spoken, attempts=3)
        assert spoken.attempts == attempts


async def test_a_call_of_a_tool_is_no_text() -> None:
    call = {"index": 0, "id": "1", "type": "function", "function": {"name": "dance", "arguments": "{}"}}
    for response in (
        whole(saying(None, tool_calls=[call])),
        stream(delta(content=None, tool_calls=[call]), delta("tool_calls"), DONE),
        stream(delta(function_call=call["function"]), delta("function_call"), DONE),
    ):
        with pytest.raises(ModelFailed, match=r"^The model's answer had no text\.$"):
            await heard(response)


@pytest.mark.parametrize("answer", [(), (delta(content="Hel"),), (delta(content="Hel"), DONE)])
async def test_a_stream_without_an_end_has_broken_off(answer: tuple[object, ...]) -> None:
    spoken = silently()
    with pytest.raises(ModelFailed, match=r"^The model's answer broke off\.$"):
        await heard(stream(*answer), spoken, attempts=3)
    assert spoken.attempts == 3


async def test_a_stream_without_an_end_is_whole_where_the_server_has_none() -> None:
    assert (await heard(stream(delta(content="Hello.")), open_end=True))[0] == "Hello."
    with pytest.raises(ModelFailed, match=r"^The model's answer was empty\.$"):
        await heard(stream(), open_end=True)


# ---- Errors in the place of a reply


def refusing(error: object, *, status: int = 400) -> httpx2.Response:
    return httpx2.Response(status, json=error)


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Too long.", "type": "invalid_request_error", "code": "context_length_exceeded"},
        {
            "message": "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens.",
            "code": 400,
        },
        {"message": "The decoder prompt (length 9000) is longer than the maximum model length of 8192."},
        {
            "code": 400,
            "message": "request (9000 tokens) exceeds the available context size (8192 tokens)",
            "type": "exceed_context_size_error",
        },
        {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"},
        {"message": "Input exceeds the context window of this model."},
        {"message": "Too many tokens: 9000."},
        "The input is too long for this model",
    ],
)
async def test_a_conversation_that_is_too_long_is_told_from_other_errors(error: object) -> None:
    reported = {"error": error}
    for response in (
        refusing(reported),
        refusing(error),
        refusing(reported, status=413),
        refusing(reported, status=500),
        whole(reported),
        stream(reported),
        stream(delta(content="Hel"), reported),
    ):
        spoken = silently()
        with pytest.raises(ContextTooLong, match=r"^The conversation is longer than the model takes\.$"):
            await heard(response, spoken, attempts=3)
        assert spoken.attempts == 1


async def test_what_people_said_makes_no_conversation_too_long() -> None:
    repeated = {"detail": [{"type": "missing", "loc": ["body"], "input": "what is a context window?"}]}
    with pytest.raises(ModelFailed, match=r"^The model's server answered with status 422\.$") as failure:
        await heard(refusing(repeated, status=422))
    assert not isinstance(failure.value, ContextTooLong)


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        ({"message": "overloaded", "code": 503}, 3),
        ({"message": "overloaded", "type": "server_error", "code": None}, 3),
        ({"message": "slow down", "code": 429}, 3),
        ({"message": ["?"], "code": {}}, 3),
        ("out of memory", 3),
        (7, 3),
        ({"message": "no such model", "code": 404}, 1),
        ({"message": "no such model", "code": "400"}, 1),
    ],
)
async def test_an_error_in_the_place_of_a_reply_is_one(error: object, attempts: int) -> None:
    reported = {"error": error}
    for response in (whole(reported), stream(reported), stream(delta(content="Hel"), reported, END, DONE)):
        spoken = silently()
        with pytest.raises(ModelFailed, match=r"^The model's server reported an error\.$"):
            await heard(response, spoken, attempts=3)
        assert spoken.attempts == attempts


async def test_an_error_may_be_its_own_envelope() -> None:
    error = {"object": "error", "message": "no such model", "code": 404}
    for response in (whole(error), stream(error)):
        with pytest.raises(ModelFailed, match=r"^The model's server reported an error\.$"):
            await heard(response)


async def test_an_error_after_the_reply_does_not_undo_it() -> None:
    assert (await heard(stream(delta(content="Hello."), END, {"error": {"message": "no usage"}})))[0] == "Hello."
