"""``POST /api/threads/{thread_id}/messages``: many messages of a program, each answered by itself."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import Field, OnErrorOmit, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from uuid_utils.compat import uuid7

from m3 import metrics, tracing
from m3.access.access import Access
from m3.access.limits import Limits
from m3.access.principals import Principal
from m3.access.speaking import author_of, sender_of
from m3.door import MAX_BATCH, Door
from m3.errors import Forbidden, M3Error
from m3.events import ANYONE, Message, MessageAccepted, SenderName, keyed_id
from m3.settings import Settings
from m3.tenants import thread_id_of
from m3.web import Refusal, documented, not_json, problem_sentence, refusal_of
from m3.web.browsers import tell_allowance
from services.gateway.answering import answered, answering
from services.gateway.asking import Address, Key, Who
from services.gateway.guards import (
    FOREIGN,
    JSON,
    NAMED,
    NDJSON,
    NO_BROKER,
    NO_DATABASE,
    NOT_RECORDED,
    OVERLOADED,
    TOO_MANY,
    TRACEPARENT,
    kind_of,
    of_a_body,
    own,
)
from services.gateway.schemas import BatchMessage, BatchTaken, MessageTaken

PATH = "/api/threads/{thread_id}/messages"
ROUTE = {"http.request.method": "POST", "http.route": PATH}

_KINDS = f"{JSON} or {NDJSON}"
_COUNT = (422, "invalid_request", f"There must be 1 to {MAX_BATCH} messages.")

#: Items are described without binding them, since one that is wrong does not spoil the others.
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        JSON: {
            "schema": {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_BATCH,
                "items": {
                    "description": "A BatchMessage; anything else is answered with an error of its own.",
                    "anyOf": [BatchMessage.model_json_schema(), {}],
                },
            },
            "example": [{"message": "666", "key": "comment-4711"}, {"message": "first!"}],
        },
        NDJSON: {
            "schema": {
                "type": "string",
                "pattern": r"\S",
                "description": "The same, one JSON object a line; empty lines are skipped.",
            },
            "example": '{"message": "666", "key": "comment-4711"}\n{"message": "first!"}\n',
        },
    },
}


#: From its first character that is not blank.
_LINE = re.compile(rb"\S[^\n]*")
#: Both stop at the bound, and make nothing of what they do not know: the work is that of reading the body's bytes.
_messages = TypeAdapter(Annotated[list[BatchMessage], Field(min_length=1, max_length=MAX_BATCH)])
_valid_messages = TypeAdapter(list[OnErrorOmit[BatchMessage]])


async def _items(request: Request) -> list[BatchMessage | Refusal]:
    """What the body says, each by itself. Raises Refusal, where it is no batch."""
    kind, body = kind_of(request), await request.body()
    if kind == NDJSON:
        return _from_lines(body)
    if kind == JSON:
        return _from_array(body)
    raise Refusal(415, "unsupported_media_type", f"The body must be {_KINDS}.")


def _from_lines(body: bytes) -> list[BatchMessage | Refusal]:
    lines = [found[0] for found in islice(_LINE.finditer(body), MAX_BATCH + 1)]
    if not 1 <= len(lines) <= MAX_BATCH:
        raise Refusal(*_COUNT)
    return [_from_line(line) for line in lines]


def _from_line(line: bytes) -> BatchMessage | Refusal:
    try:
        return BatchMessage.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        return _invalid("The line is not JSON." if problem["type"] == "json_invalid" else problem_sentence([problem]))


def _from_array(body: bytes) -> list[BatchMessage | Refusal]:
    try:
        return [*_messages.validate_json(body)]
    except ValidationError as error:
        problems = error.errors(include_input=False)
    if not problems[0]["loc"]:
        raise _no_array(problems[0])
    wrong: dict[int | str, Refusal] = {}
    for problem in problems:
        place, *where = problem["loc"]
        wrong.setdefault(place, _invalid(problem_sentence([problem | {"loc": where}])))
    valid = _valid_messages.validate_json(body)
    others = iter(valid)
    return [wrong.get(place) or next(others) for place in range(len(wrong) + len(valid))]


def _no_array(problem: ErrorDetails) -> Refusal:
    match problem["type"]:
        case "json_invalid":
            return not_json()
        case "too_short" | "too_long":
            return Refusal(*_COUNT)
        case _:
            return Refusal(422, "invalid_request", problem_sentence([problem]))


def _invalid(sentence: str) -> Refusal:
    return Refusal(422, "invalid_message", sentence)


def _said_by(access: Access, principal: Principal, item: BatchMessage) -> BatchMessage | Refusal:
    """The message with its sender's source, unless it names another."""
    try:
        source = access.source_of(principal, item.source, told="source" in item.model_fields_set)
    except Forbidden as error:
        return refusal_of(error)
    return item if source == item.source else item.model_copy(update={"source": source})


def batches(door: Door, access: Access, limits: Limits, settings: Settings) -> APIRouter:
    router = APIRouter(tags=["messages"])

    @router.post(
        PATH,
        summary="Say many things at once",
        status_code=202,
        response_model=BatchTaken,
        dependencies=[Depends(own)],
        openapi_extra={"requestBody": _BODY, **TRACEPARENT},
        responses=documented(
            FOREIGN,
            *of_a_body(settings.batch_limit, _KINDS),
            _COUNT,
            TOO_MANY,
            OVERLOADED,
            NO_BROKER,
            NOT_RECORDED,
            NO_DATABASE,
        ),
    )
    async def say_all(  # noqa: PLR0913, PLR0917  # what FastAPI finds for it, by name
        key: Key,
        principal: Who,
        address: Address,
        request: Request,
        items: Annotated[list[BatchMessage | Refusal], Depends(_items)],
        m3_client: Annotated[SenderName, Header(description=NAMED)] = ANYONE,
    ) -> Response:
        """Answers as soon as they are recorded, in their order, each with its number or why it was not taken. Where
        none was, and trying again may help, the whole is refused."""
        tell_allowance(request.scope, await limits.hit("post", principal, address, len(items)))
        now = datetime.now(UTC)
        traceparent = tracing.received(request.scope["headers"])
        with answering(tracing.request(f"POST {PATH}", traceparent, ROUTE)) as span:
            items = [item if isinstance(item, Refusal) else _said_by(access, principal, item) for item in items]
            sender = sender_of(principal, m3_client)
            said = [
                MessageAccepted(
                    message_id=keyed_id(sender, item.key) if item.key else uuid7(),
                    thread_id=key,
                    source=item.source,
                    content=item.message,
                    interface="http_api",
                    origin=door.origin,
                    author=author_of(principal, m3_client),
                    accepted_at=now,
                    traceparent=traceparent and span.traceparent,  # without one each has a trace of its own
                )
                for item in items
                if isinstance(item, BatchMessage)
            ]
            _count(item.code for item in items if isinstance(item, Refusal))
            with tracing.accepting(said) as accepted:
                outcomes = iter(await door.take_all(accepted, settings))
            results = [item if isinstance(item, Refusal) else next(outcomes) for item in items]
            taken = _answer(thread_id_of(key), results)
            answered(span, 202)
        return Response(taken.model_dump_json(exclude_none=True), 202, media_type=JSON)

    return router


def _count(refused: Iterable[str]) -> None:
    """What was refused as a message, by code. Its lane is not known, or not its own: it counts as of the one that is
    meant where none is told."""
    for code, number in Counter(refused).items():
        metrics.MESSAGES.labels("api", "http_api", code).inc(number)


def _answer(thread_id: str, results: Sequence[Message | M3Error]) -> BatchTaken:
    """Raises Refusal, where no message was taken and trying again may help."""
    refusals = {result: refusal_of(result) for result in results if isinstance(result, M3Error)}
    for_now = next((refusal for refusal in refusals.values() if "Retry-After" in refusal.headers), None)
    if for_now and not any(isinstance(result, Message) for result in results):
        raise Refusal(for_now.status, for_now.body.code, for_now.body.message, retry=True)
    return BatchTaken(
        thread_id=thread_id,
        messages=[
            refusals[result].body
            if isinstance(result, M3Error)
            else MessageTaken(message_id=result.message_id, seq=result.seq)
            for result in results
        ],
    )
