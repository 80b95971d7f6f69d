"""``POST /v1/chat/completions``, plain and streamed, and ``GET /v1/models``, as far as chat clients use them."""

import json
import time
from collections.abc import Iterator
from typing import Annotated, Any
from uuid import uuid4

from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field

from m3.web import answer_errors

NAME = "demo"
#: Characters of a message that the demo repeats.
ECHO = 200


class ChatMessage(BaseModel):
    role: str
    content: str | None = None


class StreamOptions(BaseModel):
    include_usage: bool = False


class CompletionRequest(BaseModel):
    model: str = NAME
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    stream: bool = False
    stream_options: StreamOptions | None = None


def demo_model() -> FastAPI:
    app = FastAPI(title="M3 demo model", docs_url=None, redoc_url=None, openapi_url=None)
    answer_errors(app)

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": NAME, "object": "model", "created": 0, "owned_by": "m3"}]}

    @app.post("/v1/chat/completions", response_model=None)
    async def complete(request: CompletionRequest) -> Response:
        text = _reply(request.messages)
        if request.stream:
            return StreamingResponse(_chunks(request, text), media_type="text/event-stream")
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        completion = {"choices": [choice], "usage": _usage(request.messages, text)}
        # ASCII, as the chunks: half of a surrogate pair has no UTF-8.
        body = json.dumps(_envelope(request.model, "chat.completion") | completion)
        return Response(body, media_type="application/json")

    return app


def _reply(messages: list[ChatMessage]) -> str:
    heard = next((message.content or "" for message in reversed(messages) if message.role == "user"), "")
    short = heard if len(heard) <= ECHO else f"{heard[:ECHO]}…"
    return f"(demo model, no LLM is connected) I heard: {short}"


def _chunks(request: CompletionRequest, text: str) -> Iterator[str]:
    counted = request.stream_options is not None and request.stream_options.include_usage
    envelope = _envelope(request.model, "chat.completion.chunk")
    words = text.split(" ")
    deltas: list[dict[str, str]] = [{"role": "assistant"}]
    deltas += [{"content": word if place == 0 else f" {word}"} for place, word in enumerate(words)]
    for delta in deltas:
        yield _line(envelope | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield _line(envelope | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if counted:
        yield _line(envelope | {"choices": [], "usage": _usage(request.messages, text)})
    yield "data: [DONE]\n\n"


def _line(chunk: dict[str, Any]) -> str:
    return f"data: {json.dumps(chunk)}\n\n"


def _envelope(model: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def _usage(messages: list[ChatMessage], text: str) -> dict[str, int]:
    """To this model a word is a token."""
    prompt = sum(len((message.content or "").split()) for message in messages)
    completion = len(text.split())
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
