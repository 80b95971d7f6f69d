"""A route that FastAPI documents and that reads its request itself: most of what a message cost was FastAPI's solving
of dependencies."""

import json
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, get_type_hints

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from m3.web import not_json
from services.gateway.guards import plain

M = TypeVar("M", bound=BaseModel)


class DirectRoute(APIRoute):
    """For endpoints whose parameters are ``said``, a model of the JSON body; ``headers``, a model of the headers; and
    the ``request``. They return a Response."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint, models = self.endpoint, get_type_hints(self.endpoint)
        said, headers = models["said"], models["headers"]

        async def handle(request: Request) -> Response:
            await plain(request)
            response: Response = await endpoint(
                said=_valid(said, await _json(request), "body"),
                headers=_valid(headers, _headers(request, headers), "header"),
                request=request,
            )
            return response

        return handle


def _valid(model: type[M], values: object, where: str) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False)
        raise RequestValidationError([problem | {"loc": (where, *problem["loc"])} for problem in problems]) from None


async def _json(request: Request) -> object:
    """As FastAPI reads it: no body is no value. Raises Refusal."""
    body = await request.body()
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):
        raise not_json() from None


def _headers(request: Request, model: type[BaseModel]) -> dict[str, str]:
    """Those that the model has, which writes them with underscores."""
    sent = request.headers
    return {field: sent[name] for field in model.model_fields if (name := field.replace("_", "-")) in sent}
