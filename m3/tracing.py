"""A message's way through the services, by the W3C's Trace Context: the id of its trace in logs, and spans of it.

Bodies on the bus carry several events, and an agent finds its messages in the table, so the trace travels in the event
and in the row. A message that came without one is traced under its own id, a reply under that of the first message that
it answers: then nothing is kept, and whoever has a message's id has its trace's.

Spans go nowhere unless ``exported``, and cost next to nothing then.
"""

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import datetime
from logging import DEBUG
from time import time_ns
from types import TracebackType
from typing import Literal, Protocol, Self

from structlog.typing import FilteringBoundLogger

from m3 import topology
from m3.errors import StartError
from m3.events import Message, MessageAccepted
from m3.settings import Settings
from m3.topology import Route

#: Seconds in which the last spans are sent at the end.
FLUSH_TIMEOUT = 1.0
#: Version, trace, span and flags; in a newer version more may follow. Neither id may be all zeros.
_TRACEPARENT = re.compile(
    "(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})"
    "-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?",
    re.DOTALL,
)
#: The flags that we know: it is sampled, and its id is random.
_FLAGS = 0b11

Kind = Literal["SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
Attributes = Mapping[str, str | int]


def understood(value: object) -> str:
    """The traceparent in the version that we speak, or "" for what is none: that is to be ignored, and no error."""
    found = _TRACEPARENT.fullmatch(value.strip(" \t")) if isinstance(value, str) else None
    if found is None or (found["more"] is not None and found["version"] == "00"):
        return ""
    return f"00-{found['trace']}-{found['span']}-{int(found['flags'], 16) & _FLAGS:02x}"


def received(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The traceparent of a request, as ``understood``. Of two nobody knows which one counts."""
    values = [value for name, value in headers if name == b"traceparent"]
    return understood(values[0].decode("latin-1")) if len(values) == 1 else ""


def ids(message: Message | MessageAccepted) -> dict[str, str]:
    """What log lines about the message have in common."""
    return {
        "trace_id": trace_id(message),
        "thread_id": message.thread_id,
        "message_id": str(message.message_id),
    }


def trace_id(message: Message | MessageAccepted) -> str:
    if carried := understood(message.traceparent):
        return carried[3:35]
    return (*message.in_reply_to, message.message_id)[0].hex


def followed(log: FilteringBoundLogger) -> bool:
    """Whether anybody is told where a message is: by spans, or by this log."""
    return _Process.spans is not None or log.is_enabled_for(DEBUG)


# ---- Spans


class Span:
    """Something that is done for a message, for as long as a block. This one is exported nowhere.

    ``traceparent`` is what that which is done inside it belongs to.
    """

    __slots__ = ("traceparent",)

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent

    def carried_by(self, event: MessageAccepted) -> MessageAccepted:
        """The event, with what becomes of it belonging to this span."""
        return event

    def ended(self, attributes: Attributes, *, error: str = "") -> None:
        """Tell how it ended; ``error`` is the kind of one. Otherwise an error that leaves the block is told."""

    def end(self, until: int | None = None) -> None:
        """End it outside a block: now, or at that time in nanoseconds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


class Spans(Protocol):
    """Makes spans that are exported (m3/otel.py). They belong to a traceparent; or begin the trace of that id, with a
    link to the span that is around; or without either belong to the span that is around. Times are in nanoseconds."""

    def begin(  # noqa: PLR0913
        self,
        name: str,
        kind: Kind,
        attributes: Attributes,
        *,
        traceparent: str = "",
        trace_id: str = "",
        links: Sequence[str] = (),
        since: int | None = None,
    ) -> Span: ...


class _Process:
    """Where the spans of this process go."""

    spans: Spans | None = None
    system = ""


def span(  # noqa: PLR0913
    name: str,
    kind: Kind,
    message: Message | MessageAccepted,
    attributes: Attributes | None = None,
    *,
    route: Route | None = None,
    others: Sequence[Message] = (),
) -> Span:
    """What is done for the message, met on that route, and for ``others`` with it, which are linked."""
    if _Process.spans is None:
        return Span(message.traceparent or "")
    return _Process.spans.begin(
        name,
        kind,
        {**_described(name, kind, message, route), **(attributes or {})},
        traceparent=understood(message.traceparent),
        trace_id=trace_id(message),
        links=[_place(other) for other in others],
    )


def request(name: str, traceparent: str, attributes: Attributes) -> Span:
    """A request that is about several messages, or none."""
    if _Process.spans is None:
        return Span(traceparent)
    return _Process.spans.begin(name, "SERVER", attributes, traceparent=traceparent)


def inner(name: str, kind: Kind, attributes: Attributes) -> Span:
    """Part of what the span around it is."""
    if _Process.spans is None:
        return _NOWHERE
    return _Process.spans.begin(name, kind, attributes)


@contextmanager
def accepting(said: Sequence[MessageAccepted]) -> Iterator[Sequence[MessageAccepted]]:
    """Messages that come in together: each has a span until they are recorded, or refused, and carries it."""
    if _Process.spans is None:
        yield said
        return
    with ExitStack() as stack:
        spans = [span("accept", "PRODUCER", message, route=topology.accepted()) for message in said]
        yield [stack.enter_context(one).carried_by(message) for one, message in zip(spans, said, strict=True)]


def passed(name: str, message: Message, route: Route, since: datetime | None, *, until: int | None = None) -> None:
    """What was done for the message, from a time on, by whichever clock, until another in nanoseconds, or now."""
    if _Process.spans is not None:
        end = until or time_ns()
        _Process.spans.begin(
            name,
            "CONSUMER",
            _described(name, "CONSUMER", message, route),
            traceparent=understood(message.traceparent),
            trace_id=trace_id(message),
            since=min(int(since.timestamp() * 1e9), end) if since else end,
        ).end(end)


_NOWHERE = Span("")

#: What OpenTelemetry calls what is done.
_OPERATIONS: Mapping[Kind, str] = {"PRODUCER": "send", "CONSUMER": "process"}


def _described(name: str, kind: Kind, message: Message | MessageAccepted, route: Route | None) -> dict[str, str | int]:
    """By OpenTelemetry's conventions for messaging; nothing of what the message says."""
    described: dict[str, str | int] = {
        "messaging.message.id": str(message.message_id),
        "messaging.message.conversation_id": message.thread_id,
    }
    if route is not None:
        described["messaging.system"] = _Process.system
        described["messaging.operation.name"] = name
        described["messaging.operation.type"] = _OPERATIONS[kind]
        described["messaging.destination.name"] = route.exchange
        if route.key:
            described["messaging.rabbitmq.destination.routing_key"] = route.key
    return described


def _place(message: Message) -> str:
    """Where in which trace the message is. Of one that carries no span the trace alone is known."""
    return understood(message.traceparent) or f"00-{trace_id(message)}-{message.message_id.hex[16:]}-00"


@asynccontextmanager
async def exported(settings: Settings, service: str) -> AsyncIterator[None]:
    """Export the spans of this process inside the block, where it is set where to. What is left at its end is sent
    within FLUSH_TIMEOUT; a collector that does not answer costs spans, and nothing else.

    Raises StartError where OpenTelemetry is not installed.
    """
    endpoint = settings.otel_exporter_otlp_endpoint
    if endpoint is None:
        yield
        return
    try:
        from m3.otel import exporting  # here, since only few install it
    except ImportError as error:
        raise StartError(
            "OTEL_EXPORTER_OTLP_ENDPOINT needs OpenTelemetry, which is not installed: pip install 'm3-room[otel]'."
        ) from error
    async with exporting(endpoint, service) as spans:
        memory = settings.broker_url.get_secret_value().startswith("memory:")
        _Process.system = "memory" if memory else "rabbitmq"
        _Process.spans = spans
        try:
            yield
        finally:
            _Process.spans = None
