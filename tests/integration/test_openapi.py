"""The HTTP door is what its OpenAPI document says."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from m3.web import ErrorBody
from tests.support.processes import Process, processes
from tests.support.until import DEADLINE

BATCHES = "/api/threads/{thread_id}/messages"

#: A room in which nothing is refused for being asked often, or late.
ASKING = {
    "AUTH": "required",
    "ACCESS_TOKEN_TTL": "3600",
    "LIMIT_POSTS": "1000000/minute",
    "LIMIT_BATCHES": "1000000/minute",
    "LIMIT_CHANGES": "1000000/minute",
    "LIMIT_TICKETS": "1000000/minute",
    "LIMIT_LOGINS": "1000000/minute",
    "LIMIT_SIGN_UPS": "1000000/minute",
    "SIGN_UP": "true",
    "REPLY_TIMEOUT": "1",
}

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running room."""
    with processes() as started:
        process = Process("up", {"DATA_DIR": str(tmp_path_factory.mktemp("room") / "data")})
        started.append(process)
        yield process.address()


@pytest.fixture(scope="module")
def asking_room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of a running room that asks who somebody is, and an access token of its operator."""
    with processes() as started:
        process = Process("up", ASKING | {"DATA_DIR": str(tmp_path_factory.mktemp("asking") / "data")})
        started.append(process)
        address = process.address()
        login = {"name": "admin", "password": process.one_time_password(), "new_password": "correct horse"}
        answer = httpx2.post(f"{address}/api/login", json=login, timeout=DEADLINE, trust_env=False)
        yield address, answer.raise_for_status().json()["access_token"]


@pytest.fixture(scope="module")
def http(room: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=room, timeout=DEADLINE, trust_env=False) as http:
        yield http


@pytest.fixture(scope="module")
def document(http: httpx2.Client) -> Any:
    return http.get("/openapi.json").raise_for_status().json()


def answers(document: Any) -> Iterator[tuple[str, int, Any]]:
    """Every documented answer: its operation, its status and what is said of its JSON."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                yield f"{method.upper()} {path}", int(status), answer["content"]["application/json"]


#: A key stands for one message, so each of its messages gets a key of its own. And a thread that was told to wait
#: keeps those who speak in it waiting, so what it sets is set for threads of their own, but for those that the room made.
HOOKS = """
import re
from itertools import count

import schemathesis

numbers = count()


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    return value.encode() if isinstance(value, str) else b""  # what is no text is no body of lines


@schemathesis.hook
def before_call(context, case, kwargs):
    key = case.headers.get("idempotency-key") if case.headers else None
    if isinstance(key, str) and re.fullmatch("[ -~]{1,255}", key):
        case.headers["idempotency-key"] = f"{next(numbers):08}{key[8:]}"
    thread_id = (case.path_parameters or {}).get("thread_id")
    if case.path.endswith("/settings") and case.method == "PUT" and isinstance(thread_id, str) and re.fullmatch("(?!t-)[A-Za-z0-9_:@-]{1,128}", thread_id):
        case.path_parameters["thread_id"] = f"set:{thread_id}"[:128]
"""


#: A check, beside those that schemathesis has.
NOBODY_COMES_IN = """

@schemathesis.check
def nobody_comes_in(context, response, case):
    takes_a_credential = "security" in case.operation.definition.raw
    assert not takes_a_credential or response.status_code >= 400, "taken without a credential"
"""


def test_schemathesis_finds_nothing_with_all_its_checks(room: str, tmp_path: Path) -> None:
    finds_nothing(room, tmp_path, HOOKS, "--checks=all", "--max-examples=30")


def test_schemathesis_finds_nothing_that_is_taken_without_a_credential(
    asking_room: tuple[str, str], tmp_path: Path
) -> None:
    checks = "not_a_server_error,status_code_conformance,response_schema_conformance,nobody_comes_in"
    finds_nothing(asking_room[0], tmp_path, HOOKS + NOBODY_COMES_IN, f"--checks={checks}", "--max-examples=5")


def test_schemathesis_finds_nothing_in_what_an_operator_may(asking_room: tuple[str, str], tmp_path: Path) -> None:
    address, token = asking_room
    (tmp_path / "schemathesis.toml").write_text(f'[auth.openapi.bearer]\nbearer = "{token}"\n')
    others = [f"--exclude-path={path}" for path in ("/api/logout", "/api/password")]  # which end the sign-in
    words = "--exclude-checks=positive_data_acceptance"  # what a name may be is told in words
    finds_nothing(address, tmp_path, HOOKS, "--checks=all", "--max-examples=5", words, *others)


def finds_nothing(address: str, tmp_path: Path, hooks: str, *options: str) -> None:
    (tmp_path / "hooks.py").write_text(hooks)
    # By its command, since its pytest plugin does not know this pytest yet.
    found = subprocess.run(
        [
            SCHEMATHESIS,
            "run",
            f"{address}/openapi.json",
            *options,
            "--generation-deterministic",
            "--warnings=off",  # no failure: made-up ids are of no message
        ],
        cwd=tmp_path,  # where it leaves its notes
        env={
            "PYTHONUTF8": "1",
            "SCHEMATHESIS_HOOKS": "hooks",
        },  # and nothing that would set it up otherwise, or lead it over a proxy
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "No issues found" in found.stdout


def test_every_error_is_documented_with_the_one_shape_and_examples(document: Any) -> None:
    for operation, status, answer in answers(document):
        if status >= 400:
            assert answer["schema"] == {"$ref": "#/components/schemas/ErrorBody"}, (operation, status)
            assert answer["examples"], (operation, status)
            for code, example in answer["examples"].items():
                assert ErrorBody(**example["value"]).code == code


def test_every_refusal_of_a_message_is_documented(document: Any) -> None:
    statuses = {status for operation, status, _ in answers(document) if operation == "POST /api/chat"}
    assert statuses == {200, 202, 400, 404, 408, 413, 415, 422, 429, 431, 502, 503}


def test_every_refusal_of_a_batch_is_documented(document: Any) -> None:
    statuses = {status for operation, status, _ in answers(document) if operation == f"POST {BATCHES}"}
    assert statuses == {202, 400, 403, 408, 413, 415, 422, 429, 431, 503}


def test_both_forms_of_a_batch_are_documented_with_examples_that_are_taken(http: httpx2.Client, document: Any) -> None:
    content = document["paths"][BATCHES]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "application/x-ndjson"}
    array, lines = (content[kind]["example"] for kind in content)
    for body, kind in ((json.dumps(array), "application/json"), (lines, "application/x-ndjson")):
        headers = {"Content-Type": kind, "M3-Client": "examples"}
        answer = http.post(BATCHES.format(thread_id="examples"), content=body.encode(), headers=headers)
        assert answer.status_code == 202
        assert [set(message) for message in answer.json()["messages"]] == [{"message_id", "seq"}] * 2


def test_the_event_stream_is_documented(document: Any) -> None:
    content = document["paths"]["/api/chat"]["post"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/event-stream"}


def test_the_documented_example_of_a_message_gets_a_reply(http: httpx2.Client, document: Any) -> None:
    (example,) = document["components"]["schemas"]["ChatRequest"]["examples"]
    answer = http.post("/api/chat", json=example)
    assert answer.status_code == 200
    assert answer.json()["thread_id"] == example["thread_id"]


def test_the_docs_page_and_all_it_loads_come_from_the_room_itself(http: httpx2.Client) -> None:
    page = http.get("/docs").text
    assert "https:" not in page
    loaded = re.findall(r"""(?:src|href)="([^"]+)"|url: '([^']+)'""", page)
    assert len(loaded) >= 3
    for address in (address for pair in loaded for address in pair if address):
        assert http.get(address).status_code == 200, address
