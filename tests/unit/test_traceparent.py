"""What counts as a traceparent, by https://www.w3.org/TR/trace-context-2/, and which trace a message belongs to."""

import sys
from uuid import UUID

import pytest
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, TraceIdRatioBased
from uuid_utils.compat import uuid7

from m3 import tracing
from m3.errors import StartError
from m3.events import Message, MessageAccepted, decode, encode, reply_id
from m3.otel import _EvenSampler
from m3.settings import Settings

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01"


def accepted(**fields: object) -> MessageAccepted:
    said = {"thread_id": "t", "source": "user", "content": "hi", "interface": "http_api", "origin": "nobody"}
    return MessageAccepted.model_validate(said | fields)


@pytest.mark.parametrize("flags", ["00", "01", "02", "03"])
def test_a_valid_traceparent_is_taken_as_it_is(flags: str) -> None:
    traceparent = f"00-{TRACE}-{SPAN}-{flags}"
    assert tracing.understood(traceparent) == traceparent


@pytest.mark.parametrize("blanks", [" {} ", "\t{}", "{}\t ", "  {}"])
def test_blanks_around_it_do_not_matter(blanks: str) -> None:
    assert tracing.understood(blanks.format(VALID)) == VALID


def test_flags_that_nobody_knows_are_not_passed_on() -> None:
    assert tracing.understood(f"00-{TRACE}-{SPAN}-ff") == f"00-{TRACE}-{SPAN}-03"
    assert tracing.understood(f"00-{TRACE}-{SPAN}-fc") == f"00-{TRACE}-{SPAN}-00"


@pytest.mark.parametrize("more", ["", "-", "-what-the-future-holds", "-\n"])
def test_of_a_newer_version_what_is_known_of_it_is_taken(more: str) -> None:
    assert tracing.understood(f"cc-{TRACE}-{SPAN}-01{more}") == VALID


@pytest.mark.parametrize(
    "value",
    [
        "",
        "-",
        TRACE,
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-001",
        f"00-{TRACE}-{SPAN}-01-",  # this version has nothing behind the flags
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"cc-{TRACE}-{SPAN}-011",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"000-{TRACE}-{SPAN}-01",
        f"qw-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE}-{SPAN[1:]}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{TRACE[:-1]}.-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0x",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"CC-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN[:-1]}٣-01",  # a digit, and none of ours
        f"00_{TRACE}_{SPAN}_01",
        f"{VALID},{VALID}",
        f"\n{VALID}",
        f"{VALID}\n",
        None,
        7,
        [VALID],
    ],
)
def test_what_is_no_traceparent_is_ignored(value: object) -> None:
    assert tracing.understood(value) == ""


def test_a_request_has_one_header_of_it() -> None:
    other = (b"content-type", b"application/json")
    header = (b"traceparent", VALID.encode())
    assert tracing.received([other, header]) == VALID
    assert tracing.received([other]) == ""
    assert tracing.received([header, header]) == ""
    assert tracing.received([(b"traceparent", b"\xff" * 55)]) == ""


def test_a_message_belongs_to_the_trace_that_it_came_with() -> None:
    said = accepted(traceparent=VALID)
    assert tracing.trace_id(said) == TRACE
    assert tracing.ids(said) == {"trace_id": TRACE, "thread_id": "t", "message_id": str(said.message_id)}


def test_without_one_it_is_traced_under_its_own_id() -> None:
    said = accepted()
    assert tracing.trace_id(said) == said.message_id.hex
    assert UUID(tracing.trace_id(said)) == said.message_id


def test_what_somebody_put_onto_the_bus_in_its_place_does_no_harm() -> None:
    said = accepted(traceparent="00-and-so-on")
    assert tracing.trace_id(said) == said.message_id.hex


def test_a_reply_belongs_to_the_trace_of_the_first_message_that_it_answers() -> None:
    first, second = uuid7(), uuid7()
    reply = accepted(message_id=reply_id(first), source="assistant", in_reply_to=(first, second))
    assert tracing.trace_id(reply) == first.hex
    assert tracing.trace_id(reply.model_copy(update={"traceparent": VALID})) == TRACE


def test_an_older_service_tells_no_trace() -> None:
    body = encode([accepted()]).replace(b',"traceparent":""', b"")
    (event,) = decode(body)
    assert isinstance(event, MessageAccepted)
    assert event.traceparent == ""
    assert Message.model_fields["traceparent"].default is None


def test_where_no_spans_are_exported_one_passes_on_what_came() -> None:
    said = accepted(traceparent=VALID)
    with tracing.span("POST /api/chat", "SERVER", said) as span:
        assert span.traceparent == VALID
        assert span.carried_by(said) is said
        span.ended({"http.response.status_code": 200})
    with tracing.accepting([said]) as accepting:
        assert accepting == [said]
    with tracing.request("POST /", VALID, {}) as request:
        assert request.traceparent == VALID


async def test_who_wants_spans_without_opentelemetry_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "m3.otel", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    settings = Settings(otel_exporter_otlp_endpoint="http://127.0.0.1:4318")
    with pytest.raises(StartError, match=r"pip install 'm3-room\[otel\]'"):
        async with tracing.exported(settings, "gateway"):
            pass


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_of_the_traces_of_messages_a_ratio_is_sampled_as_of_any_others(ratio: float) -> None:
    sampler = _EvenSampler(ParentBased(TraceIdRatioBased(ratio)))
    decisions = [sampler.should_sample(None, uuid7().int, "POST /api/chat").decision for _ in range(5000)]
    assert decisions.count(Decision.RECORD_AND_SAMPLE) / 5000 == pytest.approx(ratio, abs=0.05)
