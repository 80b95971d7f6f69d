"""What HTTP services say of a wrong body, and of an address that cannot be had."""

import asyncio
import json
import socket
from typing import Literal

import pytest
from pydantic import BaseModel, ValidationError

from m3.errors import BusUnavailable, M3Error, NotRetryable, StartError, ThreadFlooded, UnknownMessage
from m3.events import OutsideText
from m3.threads import ThreadSettings
from m3.web import bind, problem_sentence, refusal_of


class Body(BaseModel):
    message: OutsideText
    source: Literal["user", "api"] = "user"
    tags: list[int] = []


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "message: Field required."),
        ({"message": " "}, "message: must not be blank."),
        ({"message": "confidence\x00"}, "message: must not contain the NUL character."),
        ({"message": "x", "source": "confidence"}, "source: Input should be 'user' or 'api'."),
        (
            {"message": "x", "tags": [1, "confidence"]},
            "tags.1: Input should be a valid integer, unable to parse string as an integer.",
        ),
        ([], "Input should be an object."),
    ],
)
def test_a_problem_is_a_sentence_that_says_where_and_does_not_repeat_the_input(body: object, sentence: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Body.model_validate_json(json.dumps(body))
    problems = refused.value.errors()
    assert problem_sentence(problems) == sentence
    from_fastapi = [problem | {"loc": ("body", *problem["loc"])} for problem in problems]
    assert problem_sentence(from_fastapi) == sentence


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("systm_prompt", "systm_prompt: Extra inputs are not permitted."),
        ("\x00", "Extra inputs are not permitted."),
        ("a sentence that somebody confided", "Extra inputs are not permitted."),
        ("x" * 65, "Extra inputs are not permitted."),
    ],
)
def test_a_field_that_is_not_known_is_named_where_its_name_is_one(name: str, sentence: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ThreadSettings.model_validate({name: "x"})
    assert problem_sentence(refused.value.errors()) == sentence


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ThreadFlooded("Too many."), 429, "thread_flooded"),
        (BusUnavailable("away"), 503, "broker_unavailable"),
        (NotRetryable("No."), 409, "not_retryable"),
        (UnknownMessage("No."), 404, "not_found"),
    ],
)
def test_what_passes_is_told_with_when_to_come_again(error: M3Error, status: int, code: str) -> None:
    refusal = refusal_of(error)
    assert (refusal.status, refusal.body.code) == (status, code)
    assert ("Retry-After" in refusal.headers) == (status in {429, 503})


def test_the_first_of_several_problems_is_told() -> None:
    problems = [{"loc": ("body", "a"), "msg": "one"}, {"loc": ("body", "b"), "msg": "two"}]
    assert problem_sentence(problems) == "a: one."


def test_a_part_of_the_url_is_named() -> None:
    assert problem_sentence([{"loc": ("path", "thread_id"), "msg": "no"}]) == "path.thread_id: no."


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_port_0_takes_a_free_one_and_does_not_listen_yet(host: str) -> None:
    with bind(host, 0) as sock:
        assert sock.getsockname()[1] > 0
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_a_port_in_use_is_told_with_what_to_do_about_it() -> None:
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", 0))
        occupant.listen()
        port = occupant.getsockname()[1]
        with pytest.raises(StartError) as refused:
            bind("127.0.0.1", port)
    assert str(refused.value) == f"Cannot listen on 127.0.0.1 port {port}: Address already in use. Set HOST or PORT."


def test_a_port_that_was_just_left_can_be_had_again() -> None:
    with bind("127.0.0.1", 0) as left:
        left.listen()
        address = left.getsockname()
        with socket.create_connection(address), left.accept()[0]:
            pass
    with bind(*address) as taken:
        assert taken.getsockname() == address


@pytest.mark.parametrize(
    ("host", "port"),
    [
        pytest.param("127.0.0.1", 65_536, id="port out of range"),
        pytest.param("127.0.0.1", -1, id="negative port"),
        pytest.param("192.0.2.1", 0, id="address of another machine"),
    ],
)
def test_an_address_that_cannot_be_had_is_told_with_what_to_do_about_it(host: str, port: int) -> None:
    with pytest.raises(StartError) as refused:
        bind(host, port)
    assert str(refused.value).startswith(f"Cannot listen on {host} port {port}: ")
    assert str(refused.value).endswith(". Set HOST or PORT.")


async def test_what_is_answered_there_waits_for_no_acknowledgement_of_what_went_before() -> None:
    """By asyncio's own loop, in which the tests run; uvloop does so by itself."""
    taken: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    with bind("127.0.0.1", 0) as sock:
        async with await asyncio.start_server(serve, sock=sock):
            _, writer = await asyncio.open_connection(*sock.getsockname())
            assert await taken
            writer.close()
