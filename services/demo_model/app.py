"""``POST /v1/chat/completions``, plain and streamed, and ``GET /v1/models``, as far as chat clients use them."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import uuid4

from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field

from m3.web import answer_errors
from services.demo_model.stories import Story, story_for

NAME = "demo"
#: What it begins with, whatever it says.
DEMO = "(demo model, no LLM is connected)"
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
        heard = next((message.content or "" for message in reversed(request.messages) if message.role == "user"), "")
        story = story_for(heard)
        text = f"{DEMO}\n\n{story.text}" if story else _echo(heard)
        if request.stream:
            return StreamingResponse(_chunks(request, text, story), media_type="text/event-stream")
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        completion = {"choices": [choice], "usage": _usage(request.messages, text)}
        # ASCII, as the chunks: half of a surrogate pair has no UTF-8.
        body = json.dumps(_envelope(request.model, "chat.completion") | completion)
        return Response(body, media_type="application/json")

    return app


def _echo(heard: str) -> str:
    return f"{DEMO} I heard: {heard if len(heard) <= ECHO else f'{heard[:ECHO]}…'}"


async def _chunks(request: CompletionRequest, text: str, story: Story | None) -> AsyncIterator[str]:
    """A story as somebody would tell it, and all else at once."""
    counted = request.stream_options is not None and request.stream_options.include_usage
    envelope = _envelope(request.model, "chat.completion.chunk")
    pieces = [f"{DEMO}\n\n", *story.pieces()] if story else re.findall(r"(?:^| )[^ ]*", text)
    deltas: list[dict[str, str]] = [{"role": "assistant"}, *({"content": piece} for piece in pieces)]
    for delta in deltas:
        yield _line(envelope | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        if story:
            await asyncio.sleep(1 / story.pace)
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
