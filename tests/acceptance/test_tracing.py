"""One message followed through real processes over RabbitMQ: by its trace's id in their logs, and as spans."""

import json
import socket as sockets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from secrets import token_hex
from typing import Any
from uuid import UUID

import httpx2
import pytest

from tests.support.client import Socket, client, history, post, socket, streaming
from tests.support.collector import Collector, Exported, collecting
from tests.support.processes import Process
from tests.support.until import until

SERVICES = ("gateway", "pusher", "recorder", "agent")

#: In everything that is said, and in nothing that is logged or exported.
SECRET = "the-secret-recipe"

Start = Callable[..., Process]


class Room:
    """The four services, each a process, and a client of the HTTP door and one with a socket."""

    def __init__(self, services: dict[str, Process]) -> None:
        self.services = services
        self.addresses = {name: services[name].address() for name in ("gateway", "pusher")}
        for name in ("recorder", "agent"):
            services[name].started()

    def log(self, service: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.services[service].said.splitlines() if line.startswith("{")]

    def events(self, service: str, trace_id: str) -> list[str]:
        """What a service logged of a trace, in order."""
        return [line["event"] for line in self.log(service) if line.get("trace_id") == trace_id]

    async def told(self, service: str, trace_id: str, *events: str) -> None:
        """Wait until a service logged all these of the trace."""
        await until(lambda: not Counter(events) - Counter(self.events(service, trace_id)))


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def room(start: Start, broker_url: str, database_url: str) -> Callable[..., Room]:
    def room(**settings: str) -> Room:
        servers = {"BROKER_URL": broker_url, "DATABASE_URL": database_url, "LOG_LEVEL": "debug", **settings}
        return Room({name: start(name, **servers) for name in SERVICES})

    return room


def traceparent(trace_id: str) -> str:
    return f"00-{trace_id}-{token_hex(8)}-01"


async def say(way: str, http: httpx2.AsyncClient, listener: Socket, thread: str, trace_id: str | None) -> str:
    """Say something in one of the ways in, and return the trace that it must have."""
    headers = {"traceparent": traceparent(trace_id)} if trace_id else {}
    body = {"message": f"{way}: {SECRET}", "thread_id": thread}
    match way:
        case "post":
            message_id = (await http.post("/api/chat", json=body, headers=headers)).json()["message_id"]
        case "stream":
            async with streaming(http, body["message"], headers, thread_id=thread) as stream:
                message_id = (await stream.rest())[0][1]["message_id"]
        case "batch":
            answer = await http.post(f"/api/threads/{thread}/messages", json=[body], headers=headers)
            message_id = answer.json()["messages"][0]["message_id"]
        case _:
            message_id = (await listener.say(body["message"], **headers))["message_id"]
    return trace_id or UUID(message_id).hex


@pytest.mark.parametrize("traced", [True, False], ids=["with a traceparent", "without one"])
async def test_every_service_logs_a_message_and_its_reply_under_one_trace(
    room: Callable[..., Room], *, traced: bool
) -> None:
    """Whichever way it came in; and none logs what it says."""
    services = room()
    async with client(services.addresses["gateway"]) as http:
        for way in ("post", "stream", "batch", "socket"):
            async with socket(services.addresses["pusher"], way) as listener:
                trace_id = await say(way, http, listener, way, token_hex(16) if traced else None)
                door = "pusher" if way == "socket" else "gateway"
                await services.told(door, trace_id, "message accepted")
                await services.told("recorder", trace_id, "message recorded", "message recorded", "message settled")
                await services.told("agent", trace_id, "turn began", "message accepted", "turn ended")
                await services.told("pusher", trace_id, "message pushed", "message pushed")
                (recorded, reply) = [
                    line
                    for line in services.log("recorder")
                    if line.get("trace_id") == trace_id and line["event"] == "message recorded"
                ]
                assert recorded["message_id"] != reply["message_id"]
                assert recorded["thread_id"] == reply["thread_id"] == way
        shown = await history(http, "post")
        assert all("traceparent" not in message for message in shown)
    for name, service in services.services.items():
        assert service.stop() == 0
        assert SECRET not in service.said, name


@pytest.mark.parametrize("header", ["", "00-0-0-0", "ff", f"00-{'0' * 32}-{'0' * 16}-00"])
async def test_what_is_no_traceparent_is_no_error_either(header: str, start: Start, database_url: str) -> None:
    process = start("up", DATABASE_URL=database_url)
    address = process.address()
    async with client(address) as http, socket(address, "t") as listener:
        body = {"message": "hello"}
        assert (await http.post("/api/chat", json=body, headers={"traceparent": header})).status_code == 200
        batch = await http.post("/api/threads/t/messages", json=[body], headers={"traceparent": header})
        assert batch.status_code == 202
        values: list[object] = [header, 7, None, [header], {}]
        for value in values:
            await listener.send(json.dumps({"type": "message", "message": "hello", "traceparent": value}))
            await listener.next("recorded")


async def test_the_spans_of_all_services_are_one_tree(room: Callable[..., Room], collector: Collector) -> None:
    services = room(OTEL_EXPORTER_OTLP_ENDPOINT=collector.address, OTEL_BSP_SCHEDULE_DELAY="100")
    caller = traceparent(token_hex(16))
    _, trace_id, caller_span, _ = caller.split("-")
    async with client(services.addresses["gateway"]) as http, socket(services.addresses["pusher"], "t") as listener:
        body = {"message": SECRET, "thread_id": "t"}
        answer = (await http.post("/api/chat", json=body, headers={"traceparent": caller})).json()
        await listener.messages(2)
        unasked = await post(http, SECRET, thread_id="t")
        await listener.messages(2)
        streamed = await say("stream", http, listener, "t", None)
        await listener.messages(2)
        untraced = [UUID(unasked["message_id"]).hex, streamed]
        for trace in (trace_id, *untraced):
            await until(lambda trace=trace: len(collector.of(trace)) == 7)  # type: ignore[misc]  # mypy's guess at it

    spans = collector.of(trace_id)
    (root,) = [span for span in spans if span.parent_id == caller_span]
    assert _tree(spans, root) == {
        ("m3-gateway", "POST /api/chat", "SERVER"): {
            ("m3-recorder", "record", "CONSUMER"): {},
            ("m3-pusher", "push", "CONSUMER"): {},
            ("m3-agent", "turn", "CONSUMER"): {
                ("m3-agent", "chat demo", "CLIENT"): {},
                ("m3-recorder", "record", "CONSUMER"): {},
                ("m3-pusher", "push", "CONSUMER"): {},
            },
        }
    }
    assert root.attributes["http.route"] == "/api/chat"
    assert root.attributes["http.response.status_code"] == 200
    record = {span.attributes["messaging.message.id"]: span for span in spans if span.name == "record"}
    assert set(record) == {answer["message_id"], answer["reply_id"]}
    assert record[answer["message_id"]].attributes["messaging.system"] == "rabbitmq"
    assert record[answer["message_id"]].attributes["messaging.destination.name"] == "chat.in"
    (asked,) = [span for span in spans if span.kind == "CLIENT"]
    assert asked.attributes["gen_ai.request.model"] == "demo"
    assert int(asked.attributes["gen_ai.usage.input_tokens"]) > 0
    assert int(asked.attributes["gen_ai.usage.output_tokens"]) > 0
    assert not any(span.failed for span in spans)

    whole = _tree(spans, root)
    for trace in untraced:
        spans = collector.of(trace)
        (root,) = [span for span in spans if not span.parent_id]
        assert _tree(spans, root) == whole
        assert root.attributes["http.response.status_code"] == 200
        (turn,) = [span for span in spans if span.name == "turn"]
        assert root.seconds >= turn.seconds  # also of a stream the root is the whole
    for service in services.services.values():
        assert service.stop() == 0
    assert not any(SECRET.encode() in body for body in collector.bodies)


def _tree(spans: list[Exported], root: Exported) -> dict[tuple[str, str, str], Any]:
    """The spans by what they are, each with those inside it; of two that are alike at one place one is enough."""
    below: dict[tuple[str, str, str], Any] = {}
    for span in spans:
        if span.parent_id == root.span_id:
            below |= _tree(spans, span)
    return {(root.service, root.name, root.kind): below}


async def test_messages_that_come_together_have_traces_of_their_own_and_share_a_turn(
    room: Callable[..., Room], collector: Collector
) -> None:
    services = room(OTEL_EXPORTER_OTLP_ENDPOINT=collector.address, OTEL_BSP_SCHEDULE_DELAY="100")
    async with client(services.addresses["gateway"]) as http, socket(services.addresses["pusher"], "t") as listener:
        batch = [{"message": f"{number}: {SECRET}"} for number in range(3)]
        taken = (await http.post("/api/threads/t/messages", json=batch)).json()["messages"]
        await listener.messages(4)
        first, *others = [UUID(message["message_id"]).hex for message in taken]
        await until(lambda: any(span.name == "turn" for span in collector.of(first)))
        for other in others:
            await until(lambda other=other: len(collector.of(other)) == 3)  # type: ignore[misc]  # mypy's guess at it
        await until(lambda: any(span.name.startswith("POST") for span in collector.spans))

    (request,) = [span for span in collector.spans if span.name.startswith("POST")]
    assert request.trace_id not in {first, *others}
    accepts = {span.trace_id: span for span in collector.spans if span.name == "accept"}
    assert set(accepts) == {first, *others}
    for accept in accepts.values():
        assert (accept.kind, accept.parent_id) == ("PRODUCER", "")
        assert accept.links == ((request.trace_id, request.span_id),)
    (turn,) = [span for span in collector.spans if span.name == "turn"]
    assert turn.parent_id == accepts[first].span_id
    assert turn.links == tuple((other, accepts[other].span_id) for other in others)
    for other in others:
        assert {span.name for span in collector.of(other)} == {"accept", "record", "push"}


async def test_a_model_that_fails_shows_in_the_spans_without_what_it_was_told(
    start: Start, database_url: str, collector: Collector
) -> None:
    process = start(
        "up",
        DATABASE_URL=database_url,
        LLM_BASE_URL="http://127.0.0.1:1/v1",
        LLM_ATTEMPTS="1",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.address,
    )
    async with client(process.address()) as http:
        answer = await http.post("/api/chat", json={"message": SECRET})
        assert answer.status_code == 502
    assert process.stop() == 0  # which sends what is left
    failed = {span.name: span.attributes["error.type"] for span in collector.spans if span.failed}
    assert failed == {"POST /api/chat": "502", "turn": "model_failed", "chat demo": "ModelFailed"}
    assert {span.service for span in collector.spans} == {"m3-room"}
    assert not any(SECRET.encode() in body for body in collector.bodies)


@pytest.mark.parametrize("state", ["absent", "silent"])
async def test_a_dead_collector_harms_nobody(start: Start, database_url: str, state: str) -> None:
    with sockets.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if state == "absent":
            silent.close()
        process = start(
            "up",
            DATABASE_URL=database_url,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            OTEL_BSP_SCHEDULE_DELAY="10",
            OTEL_BSP_MAX_QUEUE_SIZE="16",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="16",
        )
        async with client(process.address()) as http:
            for number in range(20):
                await post(http, f"hello {number}")
            answer = await http.post("/api/threads/many/messages", json=[{"message": f"{n}"} for n in range(500)])
            assert answer.status_code == 202
        asked = time.monotonic()
        assert process.stop() == 0, process.said
        assert time.monotonic() - asked < 10  # the grace
        assert "Traceback" not in process.said
