"""What a client is told of the limits that it asks under."""

from math import ceil

from m3.access.limits import Allowance
from m3.errors import TooOften


def rate_headers(told: Allowance | TooOften) -> dict[str, str]:
    """Whole seconds, and of these rather one too many."""
    if isinstance(told, TooOften):
        wait = str(max(1, ceil(told.retry_after)))
        return {"Retry-After": wait} | _headers(told.limit, 0, wait)
    return _headers(told.limit, told.remaining, str(ceil(told.reset)))


def _headers(limit: int, remaining: int, reset: str) -> dict[str, str]:
    return {"X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": str(remaining), "X-RateLimit-Reset": reset}
