"""What the API's description says of credentials, in a room that asks who somebody is: the same of every route, by its
rule."""

from typing import Any

from fastapi import FastAPI

from m3.access.rules import OPEN_TO_ALL, ROUTES, about_a_thread
from services.gateway.guards import FORBIDDEN, NO_THREAD, NOT_SIGNED_IN, TOO_OFTEN

_BEARER = {"type": "http", "scheme": "bearer", "description": "An access token, or a producer key."}


def describe_credentials(app: FastAPI) -> None:
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _add_credentials(made())
        return made()

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI says to extend it


def _add_credentials(document: dict[str, Any]) -> None:
    document["components"]["securitySchemes"] = {"bearer": _BEARER}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            place = method.upper(), path
            if ROUTES[place] <= OPEN_TO_ALL:
                continue
            operation["security"] = [{"bearer": []}]
            refusals = [NOT_SIGNED_IN, FORBIDDEN, TOO_OFTEN]
            if any(map(about_a_thread, ROUTES[place])) and "{message_id}" not in path:
                refusals.append(NO_THREAD)
            for refusal in refusals:
                _add(operation["responses"], *refusal)


def _add(responses: dict[str, Any], status: int, code: str, message: str) -> None:
    """Beside what the route itself says of that status."""
    schema = {"$ref": "#/components/schemas/ErrorBody"}
    answer = responses.setdefault(
        str(status), {"description": message, "content": {"application/json": {"schema": schema, "examples": {}}}}
    )
    examples = answer["content"]["application/json"]["examples"]
    examples.setdefault(code, {"value": {"code": code, "message": message}})
