"""What services that speak HTTP share: the one shape of errors, bounds, health and the server."""

from m3.web.bodies import BoundedBody
from m3.web.counting import CountedRequests
from m3.web.errors import ErrorBody, Refusal, answer_errors, documented, not_json, problem_sentence, refusal_of
from m3.web.health import health
from m3.web.server import bind, serve

__all__ = [
    "BoundedBody",
    "CountedRequests",
    "ErrorBody",
    "Refusal",
    "answer_errors",
    "bind",
    "documented",
    "health",
    "not_json",
    "problem_sentence",
    "refusal_of",
    "serve",
]
