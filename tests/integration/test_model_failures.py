"""A model that is asked over real HTTP, of servers that are slow, busy, wrong or gone."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import stamina
from pydantic import SecretStr

from m3 import metrics
from m3.web import bind
from services.agent.model import ContextTooLong, Model, ModelFailed, Usage, open_model
from services.agent.spoken import MAX_REPLY, Spoken
from tests.support.scripted_model import (
    Behaviour,
    Script,
    ScriptedModel,
    answers,
    breaks_off,
    drips,
    hangs_up,
    in_turn,
    keeps_silent,
    redirects,
    says,
    scripted_model,
    streams,
    streams_and_breaks_off,
    streams_and_lingers,
    streams_events,
    streams_until,
    streams_without_end,
)
from tests.support.until import DEADLINE, until

KEY = "sk-kept-to-ourselves"
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """Between attempts."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture
def waiting() -> Iterator[None]:
    """Between attempts, as outside of tests."""
    with stamina.set_testing(False):
        yield


def model_at(url: str, **options: Any) -> Any:
    return open_model(url, name="scripted", api_key=SecretStr(KEY), turn_timeout=DEADLINE, **options)


@asynccontextmanager
async def asking(*behaviours: Behaviour, **options: Any) -> AsyncIterator[tuple[ScriptedModel, Model]]:
    """A server that does these in turn, and a model that is asked there."""
    async with scripted_model(in_turn(*behaviours)) as server, model_at(server.url, **options) as model:
        yield server, model


def silently() -> Spoken:
    return Spoken(lambda: None)


async def reply(model: Model, said: str = "hi") -> tuple[str, Usage | None, int]:
    """What the model says, what its server counted, and how often it was asked."""
    spoken = silently()
    usage = await model.reply([{"role": "user", "content": said}], spoken)
    return spoken.text, usage, spoken.attempts


@contextmanager
def counting(kind: str) -> Iterator[list[float]]:
    """Fills the list with how many failures of the kind were counted inside the block."""
    counter, counted = metrics.MODEL_ERRORS.labels(kind)._value, list[float]()
    before = counter.get()
    yield counted
    counted.append(counter.get() - before)


# ---- What is heard while the model speaks


async def test_what_the_model_says_is_heard_while_it_says_it() -> None:
    go_on = asyncio.Event()
    async with asking(streams_until(go_on, "Hello ", "you.")) as (server, model):
        spoken = silently()
        asked = asyncio.create_task(model.reply(HI, spoken))
        await until(lambda: spoken.text == "Hello you.")
        assert not asked.done()
        go_on.set()
        assert await asked is None
        assert server.broken_off == 0


async def test_a_reply_is_asked_for_as_a_stream_that_counts_its_tokens() -> None:
    async with asking(says("Hello to all of you.")) as (server, model):
        assert await reply(model) == ("Hello to all of you.", Usage(1, 5), 1)
        (asked,) = server.asked
        assert asked.path == "/v1/chat/completions"
        assert asked.headers["authorization"] == f"Bearer {KEY}"
        assert asked.headers["accept-encoding"] == "identity"
        assert asked.body == {
            "model": "scripted",
            "messages": HI,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


@pytest.mark.parametrize("pause", [0.0, 0.01])
async def test_each_piece_is_told_as_it_comes(pause: float) -> None:
    pieces: list[str | dict[str, object]] = [
        "One",
        " two",
        {"reasoning_content": "hm"},
        {"content": None},
        "",
        " three.",
    ]
    async with asking(streams(*pieces, pause=pause, usage=False)) as (_, model):
        told: list[str] = []
        spoken = Spoken(lambda: told.append(spoken.take_new()))
        assert await model.reply(HI, spoken) is None
        assert told == ["One", " two", " three."]


async def test_a_server_that_does_not_stream_is_understood() -> None:
    whole = '{"choices": [{"message": {"content": "Hello."}}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}'
    async with asking(answers(whole, content_type="application/json; charset=utf-8")) as (_, model):
        assert await reply(model) == ("Hello.", Usage(3, 1), 1)


REFUSED = {
    "message": {"error": {"message": "Unknown parameter: 'stream_options'", "type": "invalid_request_error"}},
    "param": {"error": {"message": "Unsupported.", "param": "stream_options", "code": "unsupported_parameter"}},
    "part of it": {"error": {"message": "Unsupported.", "param": "stream_options.include_usage"}},
    "FastAPI": {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs."}]},
    "problems in the message": {"object": "error", "message": {"detail": [{"loc": ["body", "stream_options"]}]}},
    "pydantic": {"object": "error", "message": "1 validation error for Request\nstream_options\n  Extra inputs."},
    "text": "unknown field stream_options",
}


def refuses_to_count(how: object) -> Script:
    def script(body: dict[str, Any]) -> Behaviour:
        return answers(json.dumps(how), 400) if "stream_options" in body else says("Hello.")

    return script


@pytest.mark.parametrize("how", REFUSED)
async def test_a_server_that_cannot_count_tokens_is_asked_without(how: str) -> None:
    async with scripted_model(refuses_to_count(REFUSED[how])) as server, model_at(server.url) as model:
        assert await reply(model) == ("Hello.", None, 2)
        assert await reply(model) == ("Hello.", None, 1)


async def test_who_writes_of_counting_stops_it_in_no_reply_but_their_own() -> None:
    """Servers repeat what they refuse."""
    said = "Unknown parameter: Stream_Options"

    def script(body: dict[str, Any]) -> Behaviour:
        repeated = body["messages"][0]["content"].lower()
        return answers(json.dumps({"error": {"message": repeated}}), 400) if repeated != "hi" else says("Hello.")

    async with scripted_model(script) as server, model_at(server.url) as model:
        with pytest.raises(ModelFailed):
            await reply(model, said)
        await reply(model)
        assert server.asked[-1].counted

    async with scripted_model(refuses_to_count(REFUSED["message"])) as server, model_at(server.url) as model:
        assert await reply(model, said) == ("Hello.", None, 2)  # it may be true as well


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Refused. You sent: " + "x" * 100 + "stream_options"},
        {"message": "Refused.", "input": {"stream_options": {"include_usage": True}}},
        {"detail": [{"loc": ["body", "messages"], "msg": "Refused.", "input": {"stream_options": None}}]},
        {"message": "Refused.", "param": ["stream_options"], "detail": [None, 7, {"loc": "stream_options"}]},
    ],
)
async def test_an_error_that_merely_repeats_the_request_does_not_stop_the_counting(error: object) -> None:
    async with asking(answers(json.dumps({"error": error}), 400), says("Hello.")) as (server, model):
        with pytest.raises(ModelFailed):
            await reply(model)
        await reply(model)
        assert [asked.counted for asked in server.asked] == [True, True]


# ---- When nobody waits any longer


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(keeps_silent(), id="silent"),
        pytest.param(drips(), id="dripping"),
        pytest.param(streams_until(asyncio.Event(), "Hello"), id="streaming"),
        pytest.param(streams(*["a"] * 10_000, pause=0.01), id="streaming slowly"),
        pytest.param(streams_and_lingers({"reasoning_content": "hm"}), id="thinking"),
    ],
)
async def test_a_server_sees_at_once_that_nobody_waits(behaviour: Behaviour) -> None:
    async with asking(behaviour) as (server, model):
        asked = asyncio.create_task(model.reply(HI, silently()))
        await until(lambda: bool(server.asked))
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await until(lambda: server.broken_off == 1)
        assert len(server.asked) == 1


@pytest.mark.parametrize("slow", [keeps_silent(), drips(), streams(*["a"] * 10_000, pause=0.01)])
async def test_a_server_that_is_too_slow_is_given_up_at_its_askers_deadline(slow: Behaviour) -> None:
    async with asking(slow) as (server, model):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await model.reply(HI, silently())
        await until(lambda: server.broken_off == 1)
        assert len(server.asked) == 1


async def test_a_server_that_is_silent_for_long_is_given_up() -> None:
    async with (
        scripted_model(lambda _: keeps_silent()) as server,
        open_model(server.url, name="m", api_key=SecretStr(KEY), turn_timeout=0.2) as model,
    ):
        with counting("timeout") as counted, pytest.raises(ModelFailed, match=r"^The model took too long\.$"):
            await model.reply(HI, silently())
        assert counted == [1]
        assert len(server.asked) == 1


@pytest.mark.usefixtures("waiting")
async def test_nobody_waits_for_an_attempt_that_nobody_wants() -> None:
    async with asking(answers("", 503, headers={"Retry-After": "15"})) as (server, model):
        asked = asyncio.create_task(model.reply(HI, silently()))
        await until(lambda: bool(server.asked))
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked


# ---- What another attempt may mend


PASSING: dict[str, tuple[Behaviour, str, str]] = {
    "500": (answers("<h1>Oops</h1>", 500, "text/html"), "server_error", "server answered with status 500"),
    "502": (answers("", 502), "server_error", "server answered with status 502"),
    "503": (answers("{}", 503), "server_error", "server answered with status 503"),
    "504": (answers("null", 504), "server_error", "server answered with status 504"),
    "unheard-of status": (answers("", 999), "server_error", "server answered with status 999"),
    "429": (answers("{", 429), "rate_limit", "server answered with status 429"),
    "429 until now": (
        answers("", 429, headers={"Retry-After": "0"}),
        "rate_limit",
        "server answered with status 429",
    ),
    "429 until whenever": (
        answers("", 429, headers={"Retry-After": "soon"}),
        "rate_limit",
        "server answered with status 429",
    ),
    "hung up": (hangs_up(), "connection", "server cannot be reached"),
    "half an answer": (breaks_off(), "cut", "answer broke off"),
    "half a stream": (streams_and_breaks_off("Hel"), "cut", "answer broke off"),
    "a stream of nothing": (streams_events(), "cut", "answer broke off"),
    "a stream without an end": (streams("Hel", end=None), "cut", "answer broke off"),
    "an error in the stream": (
        streams_events({"error": {"message": "CUDA out of memory", "code": 500}}),
        "server_error",
        "server reported an error",
    ),
    "no text": (says(""), "empty", "answer was empty"),
    "null": (says(None), "empty", "answer was empty"),
    "blanks": (says(" \n\t"), "empty", "answer was empty"),
    "NUL": (says("\x00\x00"), "empty", "answer was empty"),
    "thoughts only": (streams({"reasoning_content": "hm"}), "empty", "answer was empty"),
}


@pytest.mark.parametrize("kind", PASSING)
async def test_what_may_pass_is_tried_again(kind: str) -> None:
    behaviour, counter, _ = PASSING[kind]
    async with asking(behaviour, behaviour, says("Hello.")) as (server, model):
        with counting(counter) as counted:
            text, _, attempts = await reply(model)
        assert (text, attempts) == ("Hello.", 3)
        assert counted == [2]
        assert [asked.body for asked in server.asked] == [server.asked[0].body] * 3


@pytest.mark.parametrize("kind", PASSING)
async def test_what_does_not_pass_is_told_in_one_sentence(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    behaviour, counter, sentence = PASSING[kind]
    async with asking(behaviour, attempts=2) as (server, model):
        spoken = silently()
        with counting(counter) as counted, pytest.raises(ModelFailed) as failure:
            await model.reply(HI, spoken)
        assert str(failure.value) == f"The model's {sentence}."
        assert (spoken.attempts, counted) == (2, [2])
        assert len(server.asked) == 2
    logged = "".join(capsys.readouterr())
    assert KEY not in logged
    assert "stamina" not in logged


async def test_a_server_that_is_not_there_is_tried_again_and_told_in_one_sentence() -> None:
    with bind("127.0.0.1", 0) as nobody_listens:
        async with model_at(f"http://127.0.0.1:{nobody_listens.getsockname()[1]}/v1") as model:
            spoken = silently()
            with counting("connection") as counted, pytest.raises(ModelFailed) as failure:
                await model.reply(HI, spoken)
            assert str(failure.value) == "The model's server cannot be reached."
            assert (spoken.attempts, counted) == (3, [3])


async def test_a_further_attempt_voids_what_was_said() -> None:
    async with asking(streams_and_breaks_off("Hel"), hangs_up(), streams("Good", "bye.")) as (_, model):
        told: list[tuple[int, str]] = []
        spoken = Spoken(lambda: told.append((spoken.restarts, spoken.take_new())))
        await model.reply(HI, spoken)
        assert spoken.attempts == 3
        assert told == [(0, "Hel"), (1, ""), (1, "Good"), (1, "bye.")]
        assert spoken.text == "Goodbye."


async def test_what_a_failed_reply_said_last_is_kept() -> None:
    async with asking(streams_and_breaks_off("Hel"), streams_and_breaks_off("Hello")) as (_, model):
        spoken = silently()
        with pytest.raises(ModelFailed):
            await model.reply(HI, spoken)
        assert spoken.text == "Hello"


async def test_a_stream_without_an_end_is_whole_where_its_server_has_none() -> None:
    async with asking(streams("Hello.", end=None), open_end=True) as (_, model):
        assert await reply(model) == ("Hello.", Usage(1, 1), 1)


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_server_is_left_alone_for_as_long_as_it_asks(form: str) -> None:
    asked_at: list[float] = []

    def script(_: object) -> Behaviour:
        asked_at.append(time.time())
        then = datetime.now(UTC) + timedelta(seconds=2)
        told = "1" if form == "seconds" else format_datetime(then, usegmt=True)  # in whole seconds
        return says("Hello.") if len(asked_at) > 1 else answers("", 429, headers={"Retry-After": told})

    async with scripted_model(script) as server, model_at(server.url) as model:
        assert (await reply(model))[0] == "Hello."
        assert asked_at[1] - asked_at[0] >= 0.99


@pytest.mark.parametrize("status", [429, 503])
async def test_nobody_waits_for_a_server_that_asks_for_long(status: int) -> None:
    in_an_hour = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    for told in ("21", "3600", in_an_hour):
        async with asking(answers("", status, headers={"Retry-After": told})) as (server, model):
            sentence = rf"^The model's server answered with status {status}: it asks to wait for \d+ seconds\.$"
            with pytest.raises(ModelFailed, match=sentence):
                await model.reply(HI, silently())
            assert len(server.asked) == 1


@pytest.mark.parametrize("told", ["", "-1", "nan", "inf", "1e999", "Thu, 01 Jan 1970 00:00:00 GMT", "-0000", "\xff"])
async def test_a_wait_that_is_none_makes_no_difference(told: str) -> None:
    async with asking(answers("", 503, headers={"Retry-After": told}), says("Hello.")) as (_, model):
        assert (await reply(model))[0] == "Hello."


# ---- What no other attempt mends


@pytest.mark.parametrize(
    ("behaviour", "kind", "sentence"),
    [
        pytest.param(answers("{}", 400), "refused", "server answered with status 400", id="400"),
        pytest.param(answers("{", 401), "refused", "server answered with status 401: it refuses the key", id="401"),
        pytest.param(answers("", 403), "refused", "server answered with status 403: it refuses the key", id="403"),
        pytest.param(
            answers("Not Found", 404, "text/plain"),
            "refused",
            "server answered with status 404: it does not know the model or the address",
            id="404",
        ),
        pytest.param(answers("[]", 422), "refused", "server answered with status 422", id="422"),
        pytest.param(
            answers("<h1>Hi</h1>", 200, "text/html"), "not_understood", "answer was not understood", id="html"
        ),
        pytest.param(answers("<h1>Hi</h1>"), "not_understood", "answer was not understood", id="html-called-json"),
        pytest.param(answers('{"choi'), "not_understood", "answer was not understood", id="half-json"),
        pytest.param(answers("", 204), "not_understood", "answer was not understood", id="no-content"),
        pytest.param(streams_events("{"), "not_understood", "answer was not understood", id="half-event"),
        pytest.param(
            answers("{}", headers={"Content-Encoding": "gzip"}),
            "not_understood",
            "answer was not understood",
            id="compressed",
        ),
        pytest.param(
            streams({"tool_calls": [{"index": 0}]}, end="tool_calls"), "empty", "answer had no text", id="tool"
        ),
    ],
)
async def test_what_cannot_pass_is_asked_for_once(
    capsys: pytest.CaptureFixture[str], behaviour: Behaviour, kind: str, sentence: str
) -> None:
    async with asking(behaviour) as (server, model):
        spoken = silently()
        with counting(kind) as counted, pytest.raises(ModelFailed) as failure:
            await model.reply(HI, spoken)
        assert str(failure.value) == f"The model's {sentence}."
        assert (spoken.attempts, counted, len(server.asked)) == (1, [1], 1)
    assert KEY not in "".join(capsys.readouterr())


async def test_a_redirect_is_not_followed() -> None:
    async with (
        scripted_model(lambda _: says("Hello.")) as elsewhere,
        asking(redirects(f"{elsewhere.url}/chat/completions")) as (server, model),
    ):
        with pytest.raises(ModelFailed, match=r"^The model's server answered with status 307\.$"):
            await model.reply(HI, silently())
        assert (len(server.asked), elsewhere.asked) == (1, [])


async def test_a_conversation_that_is_too_long_is_told_as_such() -> None:
    refusal = '{"error": {"message": "Too long.", "code": "context_length_exceeded"}}'
    async with asking(answers(refusal, 400)) as (server, model):
        with counting("context_too_long") as counted, pytest.raises(ContextTooLong):
            await model.reply(HI, silently())
        assert (counted, len(server.asked)) == ([1], 1)


# ---- Too much of it


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(says("a" * 1024**2), id="in large pieces"),
        pytest.param(streams(*["a" * 64] * (16 * 1024)), id="in small pieces"),
    ],
)
async def test_a_reply_is_cut_where_it_is_as_long_as_may_be(behaviour: Behaviour) -> None:
    async with asking(behaviour) as (_, model):
        assert await reply(model) == ("a" * MAX_REPLY, None, 1)


async def test_what_would_be_cut_is_not_read() -> None:
    async with asking(streams_until(asyncio.Event(), "a" * (MAX_REPLY + 1))) as (server, model):
        assert await reply(model) == ("a" * MAX_REPLY, None, 1)
        await until(lambda: server.broken_off == 1)


@pytest.mark.parametrize("content_type", ["text/event-stream", "application/json"])
async def test_an_answer_without_a_bound_is_given_up(content_type: str) -> None:
    for piece in (b"x" * 64 * 1024, b"data: " + b"x" * 1024 + b"\n"):
        async with asking(streams_without_end(piece, content_type)) as (server, model):
            with pytest.raises(ModelFailed, match=r"^The model's answer was too long\.$"):
                await model.reply(HI, silently())
            await until(lambda: server.broken_off == 1)
            assert len(server.asked) == 1


async def test_a_refusal_without_a_bound_is_given_up() -> None:
    async with asking(answers("x" * 17 * 1024**2, 400)) as (_, model):
        with pytest.raises(ModelFailed, match=r"^The model's answer was too long\.$"):
            await model.reply(HI, silently())


async def test_a_reply_in_far_larger_wrapping_is_cut() -> None:
    piece = b'data: {"pad": "%b", "choices": [{"delta": {"content": "a"}}]}\n\n' % (b"x" * 1024**2)
    async with asking(streams_without_end(piece)) as (_, model):
        assert await reply(model) == ("a" * 15, None, 1)


# ---- After the reply


async def test_a_reply_is_whole_though_its_connection_is_cut_after_it() -> None:
    async with asking(streams_and_breaks_off("Hello.", end="stop")) as (server, model):
        assert await reply(model) == ("Hello.", None, 1)
        assert len(server.asked) == 1


async def test_nobody_waits_long_for_what_comes_after_the_reply() -> None:
    async with asking(streams_and_lingers("Hello.")) as (server, model):
        assert await reply(model) == ("Hello.", None, 1)
        await until(lambda: server.broken_off == 1)


async def test_what_stamina_would_count_by_itself_is_not_among_our_counts() -> None:
    async with asking(hangs_up(), says("Hello.")) as (_, model):
        await reply(model)
    assert b"m3_model_errors_total" in metrics.exposition()
    assert b"stamina" not in metrics.exposition()


async def test_what_the_server_says_of_an_error_is_in_the_log_without_the_key(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = json.dumps({"error": {"message": f"no such field for {KEY}, {'x' * 5000}"}})
    async with scripted_model(lambda _: answers(said, 422)) as server, model_at(server.url) as model:
        with pytest.raises(ModelFailed, match=r"^The model's server answered with status 422\.$"):
            await model.reply(HI, Spoken(lambda: None))
    logged = "".join(capsys.readouterr())
    assert "no such field for [key]" in logged
    assert KEY not in logged
    assert len(logged) < 3_000


@pytest.mark.parametrize("status", [200, 422, 500])
async def test_nothing_that_the_server_repeats_is_in_the_log_of_a_room_that_seals_what_is_said(
    status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"message": "not in hunter2", "type": "invalid_request_error", "code": "say hunter2", "input": "hunter2"}
    said = json.dumps({"error": told})
    body, kind = (f"data: {said}\n\n", "text/event-stream") if status == 200 else (said, "application/json")
    async with (
        scripted_model(lambda _: answers(body, status, kind)) as server,
        model_at(server.url, attempts=1, sealed=True) as model,
    ):
        with pytest.raises(ModelFailed):
            await model.reply([{"role": "user", "content": "hunter2"}], Spoken(lambda: None))
    logged = "".join(capsys.readouterr())
    assert "invalid_request_error" in logged
    assert "hunter2" not in logged


async def test_nothing_of_an_answer_that_is_not_understood_is_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    async with asking(answers("data: {hunter2\n\n", 200, "text/event-stream")) as (_, model):
        with pytest.raises(ModelFailed):
            await reply(model)
    assert "hunter2" not in "".join(capsys.readouterr())
