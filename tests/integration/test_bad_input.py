"""What no door lets in: it is refused with a 4xx in the one shape, or an error frame, and nothing is recorded."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncpg
import httpx2
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from m3.room import run_room
from m3.settings import Settings
from tests.support.processes import Process, processes
from tests.support.until import DEADLINE

# One room, one client and one look into the table serve all these tests, and so does one loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

KIB = 1024
JSON = {"Content-Type": "application/json"}

#: Thread ids that would mean something in a routing key, a path or a log, or nothing at all.
BAD_IDS = {
    "hash": "#",
    "star": "a*",
    "dot": "a.b",
    "space": "a b",
    "tab": "a\tb",
    "escape": "a\x1b",
    "delete": "a\x7f",
    "NUL": "a\0",
    "letter beyond ASCII": "é",
    "digit beyond ASCII": "٣",
    "percent": "%ff",
    "question mark": "a?b",
    "backslash": "a\\b",
    "129 characters": "a" * 129,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def table(postgres: str) -> AsyncIterator[asyncpg.Connection]:
    """A look into the database of this file's room, whatever the room says."""
    server = await asyncpg.connect(postgres)
    await server.execute("CREATE DATABASE bad_input TEMPLATE migrated")
    table = await asyncpg.connect(_database_url(postgres))
    yield table
    await table.close()
    await server.execute("DROP DATABASE bad_input WITH (FORCE)")
    await server.close()


def _database_url(postgres: str) -> str:
    return postgres.replace("/postgres?", "/bad_input?")


@pytest.fixture(scope="module")
def process(postgres: str, table: asyncpg.Connection) -> Iterator[Process]:
    with processes() as started:
        process = Process("up", {"DATABASE_URL": _database_url(postgres)})
        started.append(process)
        yield process


@pytest.fixture(scope="module")
def address(process: Process) -> str:
    return process.address()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(address: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=address, timeout=DEADLINE, trust_env=False) as http:
        yield http


@pytest_asyncio.fixture(loop_scope="module")
async def ws(address: str) -> AsyncIterator[ClientConnection]:
    """A socket that was let in."""
    async with connect(_ws(address, "/ws/chat/default"), proxy=None) as ws:
        assert json.loads(await ws.recv())["type"] == "connected"
        yield ws


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def nothing_is_recorded(
    process: Process, http: httpx2.AsyncClient, table: asyncpg.Connection
) -> AsyncIterator[None]:
    """Nor does a request meet an exception, or a message get as far as the recorder and be refused there."""
    said_before = len(process.output)
    yield
    history = await http.get("/api/threads/default/history")
    rows = await table.fetch("DELETE FROM dialogue RETURNING thread_id, content")  # one failure is to stay one
    assert history.json()["messages"] == []
    assert rows == []
    said = "".join(process.output[said_before:])
    assert "Exception in ASGI application" not in said
    assert "message refused" not in said


def assert_refused(answer: httpx2.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    error = answer.json()
    assert error == {"code": code, "message": error["message"]}
    assert error["message"].endswith(".")


async def raw(address: str, request: bytes) -> httpx2.Response:
    """The answer to bytes that no client would send."""

    def exchange() -> httpx2.Response:
        url = urlsplit(address)
        with socket.create_connection((url.hostname, url.port), timeout=DEADLINE) as connection:
            with suppress(ConnectionError):  # the answer may come, and the connection go, before all is sent
                connection.sendall(request)
            answer = HTTPResponse(connection)
            answer.begin()
            return httpx2.Response(answer.status, headers=answer.getheaders(), content=answer.read())

    return await asyncio.to_thread(exchange)


def _post(headers: str, body: bytes = b'{"message": "hi"}') -> bytes:
    return (
        f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\r\n\r\n".encode()
        + body
    )


def _ws(address: str, path: str) -> str:
    return f"ws{address.removeprefix('http')}{path}"


INVALID = {
    "empty message": {"message": ""},
    "blank message": {"message": " \t\r\n"},
    "blank beyond ASCII": {"message": "\u00a0\u2003\u2028\u3000"},
    "message with NUL": {"message": "a\0b"},
    "message with half a surrogate pair": {"message": "a\ud800"},
    "no message": {"thread_id": "default"},
    "message is a number": {"message": 1},
    "message is true": {"message": True},
    "message is a list": {"message": ["hi"]},
    "message is an object": {"message": {"text": "hi"}},
    "message is null": {"message": None},
    "message is NaN": {"message": float("nan")},
    "message is infinite": {"message": float("-inf")},
    "thread id is a number": {"message": "hi", "thread_id": 1},
    "thread id is null": {"message": "hi", "thread_id": None},
    "thread id is a list": {"message": "hi", "thread_id": ["default"]},
    "thread id is empty": {"message": "hi", "thread_id": ""},
    "thread id with a line break": {"message": "hi", "thread_id": "a\nb"},
    "thread id ends in a line break": {"message": "hi", "thread_id": "default\n"},
    "thread id with a slash": {"message": "hi", "thread_id": "a/b"},
    "thread id with half a surrogate pair": {"message": "hi", "thread_id": "\udc00"},
    **{f"thread id with {name}": {"message": "hi", "thread_id": thread_id} for name, thread_id in BAD_IDS.items()},
    "unknown source": {"message": "hi", "source": "system"},
    "the agent's source": {"message": "hi", "source": "assistant"},
    "source is empty": {"message": "hi", "source": ""},
    "source is null": {"message": "hi", "source": None},
    "source is a number": {"message": "hi", "source": 1},
    "array": [],
    "array of messages": [{"message": "hi"}],
    "string": "hi",
    "number": 1,
    "null": None,
}


@pytest.mark.parametrize("said", INVALID.values(), ids=INVALID)
async def test_what_cannot_be_said_is_refused(http: httpx2.AsyncClient, said: object) -> None:
    answer = await http.post("/api/chat", content=json.dumps(said).encode(), headers=JSON)
    assert_refused(answer, 422, "invalid_request")


@pytest.mark.parametrize("text", ["a" * (16 * KIB + 1), "é" * (8 * KIB) + "a"], ids=["in ASCII", "in UTF-8"])
async def test_a_message_one_byte_too_long_is_refused(http: httpx2.AsyncClient, text: str) -> None:
    answer = await http.post("/api/chat", content=json.dumps({"message": text}).encode(), headers=JSON)
    assert_refused(answer, 422, "message_too_long")


BODIES = {
    "empty": (b"", 422, "invalid_request"),
    "a key twice": (b'{"message": "hi", "message": ""}', 422, "invalid_request"),
    "half a surrogate pair in UTF-8": (b'{"message": "\xed\xa0\x80"}', 422, "invalid_request"),
    "blank": (b" ", 400, "malformed_body"),
    "not JSON": (b"message=hi", 400, "malformed_body"),
    "cut off": (b'{"message": "hi"', 400, "malformed_body"),
    "something after it": (b'{"message": "hi"} {}', 400, "malformed_body"),
    "a bare NUL": (b'{"message": "hi\0"}', 400, "malformed_body"),
    "Latin-1": ('{"message": "é"}'.encode("latin-1"), 400, "malformed_body"),
    "UTF-16": ('{"message": "hi"}'.encode("utf-16"), 400, "malformed_body"),
    "UTF-16 without a mark": ('{"message": "hi"}'.encode("utf-16-le"), 400, "malformed_body"),
    "UTF-32": ('{"message": "hi"}'.encode("utf-32"), 400, "malformed_body"),
    "number of 5,000 digits": (b'{"message": %s}' % (b"1" * 5_000), 400, "malformed_body"),
    "lists 30,000 deep": (b"[" * 30_000 + b"]" * 30_000, 400, "malformed_body"),
    "objects 10,000 deep": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 400, "malformed_body"),
    "lists 100,000 deep": (b"[" * 100_000, 413, "body_too_long"),
    "one byte too long": (b'{"message": "hi"}'.ljust(64 * KIB + 1), 413, "body_too_long"),
}


@pytest.mark.parametrize(("body", "status", "code"), BODIES.values(), ids=BODIES)
async def test_a_body_that_is_no_message_is_refused(
    http: httpx2.AsyncClient, body: bytes, status: int, code: str
) -> None:
    assert_refused(await http.post("/api/chat", content=body, headers=JSON), status, code)


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/merge-patch+json",
        "text/plain; application/json",
    ],
)
async def test_a_body_that_is_not_called_json_is_refused(http: httpx2.AsyncClient, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = await http.post("/api/chat", content=b'{"message": "hi"}', headers=headers)
    assert_refused(answer, 415, "unsupported_media_type")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's memory from /proc")
@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "chunked"])
async def test_a_body_of_64_mib_is_refused_and_never_held(
    http: httpx2.AsyncClient, process: Process, *, chunked: bool
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(1024):
            yield bytes(64 * KIB)

    def most_memory() -> int:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * KIB

    before = most_memory()
    answer = await http.post("/api/chat", content=chunks() if chunked else bytes(64 * KIB * KIB), headers=JSON)
    assert_refused(answer, 413, "body_too_long")
    assert most_memory() - before < 16 * KIB * KIB
    assert (await http.get("/readyz")).status_code == 200


REQUESTS = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400, "malformed_request"),
    "path beyond ASCII": (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "malformed_request"),
    "address without a path": (b"GET http://room HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "malformed_request"),
    "for a proxy": (b"CONNECT room:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n", 400, "malformed_request"),
    "negative length": (_post("Content-Length: -17"), 400, "malformed_request"),
    "length is no number": (_post("Content-Length: many"), 400, "malformed_request"),
    "length of 71 bits": (_post(f"Content-Length: {2**70}"), 400, "malformed_request"),
    "length of 64 bits": (_post(f"Content-Length: {2**63}"), 413, "body_too_long"),
    "length of 5,000 digits": (_post(f"Content-Length: {70_000:05000}"), 413, "body_too_long"),
    "two lengths": (_post("Content-Length: 17\r\nContent-Length: 18"), 400, "malformed_request"),
    "length and chunks": (_post("Content-Length: 17\r\nTransfer-Encoding: chunked"), 400, "malformed_request"),
    "length too short": (_post("Content-Length: 5"), 400, "malformed_request"),
    "broken chunk": (
        _post("Transfer-Encoding: chunked", b'11\r\n{"message": "hi"}\r\nzz\r\n'),
        400,
        "malformed_request",
    ),
    "endless trailer": (
        _post("Transfer-Encoding: chunked", b'11\r\n{"message": "hi"}\r\n0\r\nX: ' + b"a" * 512 * KIB),
        431,
        "head_too_long",
    ),
    "header of 64 KiB": (_post(f"Content-Length: 17\r\nX: {'a' * 64 * KIB}"), 431, "head_too_long"),
    "headers of 64 KiB": (_post("Content-Length: 17" + "\r\nX: aaa" * 16 * KIB), 431, "head_too_long"),
    "header without an end": (_post("X: " + "a" * 512 * KIB).rstrip(), 431, "head_too_long"),
    "path of 64 KiB": (b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"a" * 64 * KIB), 431, "head_too_long"),
}


@pytest.mark.parametrize(("request_", "status", "code"), REQUESTS.values(), ids=REQUESTS)
async def test_what_is_no_request_is_refused(address: str, request_: bytes, status: int, code: str) -> None:
    assert_refused(await raw(address, request_), status, code)
    assert (await raw(address, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")).status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"])
async def test_another_method_is_refused_and_told_which_would_do(http: httpx2.AsyncClient, method: str) -> None:
    answer = await http.request(method, "/api/chat", json={"message": "hi"})
    assert_refused(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize("path", ["/api/threads/default/history", "/api/messages/x", "/healthz", "/readyz"])
async def test_what_is_to_be_read_takes_no_post(http: httpx2.AsyncClient, path: str) -> None:
    assert_refused(await http.post(path, json={"message": "hi"}), 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/page", "/api", "/api/chats", "/api/chat%0A", "/API/chat", "/ws/chat/a"])
async def test_an_unknown_path_is_not_found(http: httpx2.AsyncClient, path: str) -> None:
    assert_refused(await http.post(path, json={"message": "hi"}), 404, "not_found")


@pytest.mark.parametrize(
    ("encoded", "status", "code"),
    [
        *[pytest.param(quote(bad, safe=""), 422, "invalid_request", id=name) for name, bad in BAD_IDS.items()],
        pytest.param("%ff", 422, "invalid_request", id="not UTF-8"),
        pytest.param("a%0Ab", 422, "invalid_request", id="line break"),
        pytest.param("default%0A", 422, "invalid_request", id="line break at the end"),
        pytest.param("%2523", 422, "invalid_request", id="encoded twice"),
        pytest.param("a%2Fb", 404, "not_found", id="slash"),
        pytest.param("..%2F..%2Fetc", 404, "not_found", id="way up"),
        pytest.param("", 404, "not_found", id="empty"),
    ],
)
async def test_a_thread_that_cannot_be_has_no_history(
    http: httpx2.AsyncClient, encoded: str, status: int, code: str
) -> None:
    assert_refused(await http.get(f"/api/threads/{encoded}/history"), status, code)


@pytest.mark.parametrize(
    "limit", ["-1", "0", "abc", "1_0", "1.5", "", "+1", " 1", "1e2", "0x1", "٣", "null", "NaN", "9" * 5_000]
)
async def test_a_limit_that_is_no_number_from_1_is_refused(http: httpx2.AsyncClient, limit: str) -> None:
    answer = await http.get("/api/threads/default/history", params={"limit": limit})
    assert_refused(answer, 422, "invalid_request")


@pytest.mark.parametrize("limit", [1, 500, 501, 2**63, 10**30])
async def test_a_limit_may_be_larger_than_what_is_ever_returned(http: httpx2.AsyncClient, limit: int) -> None:
    answer = await http.get("/api/threads/default/history", params={"limit": limit})
    assert (answer.status_code, answer.json()) == (200, {"thread_id": "default", "messages": []})


@pytest.mark.parametrize("message_id", ["1", "x", "%00", "%ff", "a" * 36, "0" * 31, "{" + "0" * 32 + "}", "9" * 5_000])
async def test_a_message_id_that_is_no_uuid_is_refused(http: httpx2.AsyncClient, message_id: str) -> None:
    assert_refused(await http.get(f"/api/messages/{message_id}"), 422, "invalid_request")


async def test_an_unknown_message_is_not_found(http: httpx2.AsyncClient) -> None:
    assert_refused(await http.get("/api/messages/01a20303-27bb-74cc-8fa0-2e27be02799f"), 404, "not_found")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        *[
            pytest.param(f"chat/{quote(bad, safe='')}", 422, "invalid_request", id=name)
            for name, bad in BAD_IDS.items()
        ],
        pytest.param("chat/%ff", 422, "invalid_request", id="not UTF-8"),
        pytest.param("chat/a/b", 422, "invalid_request", id="slash"),
        pytest.param("chat/a%2Fb", 422, "invalid_request", id="encoded slash"),
        pytest.param("chat/", 422, "invalid_request", id="empty"),
        pytest.param("chat/a%0Ab", 404, "not_found", id="line break"),
        pytest.param("chat/default%0A", 404, "not_found", id="line break at the end"),
        pytest.param("chat", 404, "not_found", id="no thread"),
        pytest.param("other", 404, "not_found", id="another path"),
    ],
)
async def test_a_socket_of_a_thread_that_cannot_be_is_refused(address: str, path: str, status: int, code: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(_ws(address, f"/ws/{path}"), proxy=None)
    answer = refused.value.response
    assert_refused(
        httpx2.Response(answer.status_code, headers=[*answer.headers.raw_items()], content=bytes(answer.body)),
        status,
        code,
    )


UPGRADE = (
    b"GET /ws/chat/default HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
HANDSHAKES = {
    "another method": (UPGRADE.replace(b"GET", b"POST"), 405),
    "no key": (UPGRADE.replace(b"Sec-WebSocket-Key", b"X"), 400),
    "broken key": (UPGRADE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"hi"), 400),
    "unknown version": (UPGRADE.replace(b"13", b"99"), 400),
    "with a body": (UPGRADE.replace(b"Host", b"Content-Length: 2\r\nHost") + b"hi", 400),
    "header longer than a line may be": (UPGRADE.replace(b"Host", b"X: " + b"a" * 9_000 + b"\r\nHost"), 400),
    "too many headers": (UPGRADE.replace(b"Host", b"X: a\r\n" * 200 + b"Host"), 400),
}


@pytest.mark.parametrize(("handshake", "status"), HANDSHAKES.values(), ids=HANDSHAKES)
async def test_a_broken_handshake_is_refused(address: str, handshake: bytes, status: int) -> None:
    assert_refused(await raw(address, handshake), status, "bad_handshake")


FRAMES: dict[str, str | bytes] = {
    "binary": b'{"type": "message", "message": "hi"}',
    "binary ping": b"ping",
    "empty": "",
    "not JSON": "hello",
    "cut off": '{"type": "message", "message": "hi"',
    "array": "[]",
    "string": '"ping"',
    "number": "1",
    "null": "null",
    "unknown type": '{"type": "shout", "message": "hi"}',
    "no type": '{"message": "hi"}',
    "type is null": '{"type": null, "message": "hi"}',
    "a key twice": '{"type": "message", "message": "hi", "message": ""}',
    "no message": '{"type": "message"}',
    **{
        name: json.dumps({"type": "message", **said})
        for name, said in INVALID.items()
        if isinstance(said, dict) and "thread id" not in name
    },
    "lists 60,000 deep": "[" * 60_000,
    "objects 10,000 deep": '{"a":' * 10_000 + "1" + "}" * 10_000,
    "number of 5,000 digits": f'{{"type": "message", "message": {"1" * 5_000}}}',
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
async def test_a_frame_that_is_no_message_gets_an_error_and_the_socket_stays(
    ws: ClientConnection, frame: str | bytes
) -> None:
    await ws.send(frame)
    error = json.loads(await ws.recv())
    assert error == {"type": "error", "code": "invalid_message", "message": error["message"]}
    assert error["message"].endswith(".")
    await ws.send("ping")
    assert json.loads(await ws.recv())["type"] == "pong"


async def test_a_message_one_byte_too_long_on_a_socket_gets_an_error(ws: ClientConnection) -> None:
    await ws.send(json.dumps({"type": "message", "message": "a" * (16 * KIB + 1)}))
    assert json.loads(await ws.recv())["code"] == "message_too_long"


@pytest.mark.parametrize("frames", [1, 4], ids=["in one frame", "in fragments"])
async def test_more_than_64_kib_closes_the_socket(ws: ClientConnection, frames: int) -> None:
    await ws.send(["a" * (64 * KIB // frames)] * frames + ["a"] if frames > 1 else "a" * (64 * KIB + 1))
    with pytest.raises(ConnectionClosedError) as closed:
        await ws.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


BROKEN_FRAMES = {
    "text that is not UTF-8": (b"\x81\x82\0\0\0\0\xff\xfe", 1007),
    "not masked": (b"\x81\x02hi", 1002),
    "unknown opcode": (b"\x83\x80\0\0\0\0", 1002),
    "reserved bits": (b"\xf1\x82\0\0\0\0hi", 1002),
    "length of 63 bits": (b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 1009),
}


@pytest.mark.parametrize(("frame", "code"), BROKEN_FRAMES.values(), ids=BROKEN_FRAMES)
async def test_what_is_no_frame_closes_the_socket(ws: ClientConnection, frame: bytes, code: int) -> None:
    ws.transport.write(frame)
    with pytest.raises(ConnectionClosedError) as closed:
        await ws.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code


@pytest_asyncio.fixture(loop_scope="module")
async def own_room(database_url: str) -> AsyncIterator[str]:
    """The address of a room in this process, where a good message may be recorded too."""
    async with run_room(Settings(port=0, database_url=database_url)) as sentence:
        yield sentence.splitlines()[0].rpartition(" ")[2]


async def _say(address: str, said: object) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=DEADLINE, trust_env=False) as http:
        return await http.post(f"{address}/api/chat", json=said)


UNFINISHED = {
    "less than its length": _post("Content-Length: 18"),
    "no last chunk": _post("Transfer-Encoding: chunked", b'11\r\n{"message": "hi"}\r\n'),
    "nothing": _post("Content-Length: 17", b""),
}


@pytest.mark.parametrize("request_", UNFINISHED.values(), ids=UNFINISHED)
async def test_a_body_that_stalls_is_refused_after_a_while_and_not_recorded(
    own_room: str, monkeypatch: pytest.MonkeyPatch, request_: bytes
) -> None:
    monkeypatch.setattr("m3.web.bodies.BODY_TIMEOUT", 0.2)
    assert_refused(await raw(own_room, request_), 408, "body_too_slow")
    assert (await _say(own_room, {"message": "hi"})).json()["seq"] == 1


@pytest.mark.parametrize("head", [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: a\r\n"])
async def test_a_head_that_stalls_is_refused_after_a_while(
    own_room: str, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr("m3.web.protocols.HEAD_TIMEOUT", 0.2)
    assert_refused(await raw(own_room, head), 408, "head_too_slow")


async def test_a_connection_that_waits_for_its_next_request_is_left_alone(
    own_room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3.web.protocols.HEAD_TIMEOUT", 0.2)
    async with httpx2.AsyncClient(base_url=own_room) as http:
        assert (await http.get("/healthz")).status_code == 200
        await asyncio.sleep(0.4)  # longer than a head may take; there is nothing to wait for but time
        (connection,) = http._transport._pool.connections  # type: ignore[attr-defined]  # no public way to look
        assert connection.is_idle()
        assert (await http.get("/healthz")).status_code == 200


@pytest.mark.parametrize("request_", UNFINISHED.values(), ids=UNFINISHED)
async def test_a_body_whose_sender_leaves_is_not_recorded(own_room: str, request_: bytes) -> None:
    url = urlsplit(own_room)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(request_)
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    assert (await _say(own_room, {"message": "hi"})).json()["seq"] == 1


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"message": "a" * (16 * KIB)}, id="16 KiB"),
        pytest.param({"message": "é" * (8 * KIB)}, id="16 KiB in UTF-8"),
        pytest.param({"message": "\x01\x1b\u2028😀"}, id="any other character"),
        pytest.param({"message": "hi", "thread_id": "a" * 128}, id="thread id of 128 characters"),
        pytest.param({"message": "hi", "thread_id": "aZ09_:@-"}, id="thread id of every kind of character"),
        pytest.param({"message": "hi", "source": "api"}, id="program"),
        pytest.param({"message": "hi", "more": "x" * (64 * KIB - 29)}, id="body of 64 KiB"),
    ],
)
async def test_what_is_just_within_the_bounds_is_recorded(own_room: str, said: dict[str, str]) -> None:
    answer = await _say(own_room, said)
    assert (answer.status_code, answer.json()["seq"]) == (200, 1)


async def test_after_bad_frames_a_socket_can_still_say_its_first_message(own_room: str) -> None:
    good = json.dumps({"type": "message", "message": "hi"}).ljust(64 * KIB)
    async with connect(_ws(own_room, "/ws/chat/default"), proxy=None) as ws:
        await ws.recv()
        for frame in FRAMES.values():
            await ws.send(frame)
            assert json.loads(await ws.recv())["type"] == "error"
        await ws.send(good)
        async with asyncio.timeout(DEADLINE):
            while (recorded := json.loads(await ws.recv()))["type"] != "recorded":
                assert recorded["type"] == "new_message"
    assert recorded["seq"] == 1
