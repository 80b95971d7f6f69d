"""A request as a span, and what is refused of it."""

from collections.abc import Iterator
from contextlib import contextmanager

from structlog.contextvars import bound_contextvars

from m3 import tracing
from m3.errors import M3Error
from m3.events import MessageAccepted
from m3.web import refusal_of


@contextmanager
def answering(span: tracing.Span, said: MessageAccepted | None = None) -> Iterator[tracing.Span]:
    """What is refused inside the block is the span's end, and logged as being about what was ``said``."""
    with span:
        try:
            yield span
        except M3Error as error:
            with bound_contextvars(**(tracing.ids(said) if said else {})):
                refusal = refusal_of(error)
            answered(span, refusal.status)
            raise refusal from None


def answered(span: tracing.Span, status: int) -> None:
    span.ended({"http.response.status_code": status}, error=str(status) if status >= 500 else "")  # noqa: PLR2004
