"""Spans that are exported, and the only importer of opentelemetry, which is an extra."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import Token
from types import TracebackType
from typing import Any, Self

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from uuid_utils.compat import uuid7

from m3 import __version__
from m3.events import MessageAccepted
from m3.tracing import FLUSH_TIMEOUT, Attributes, Kind, Span, understood


class _ExportedSpan(Span):
    __slots__ = ("_judged", "_span", "_token")

    def __init__(self, span: trace.Span) -> None:
        place = span.get_span_context()
        super().__init__(understood(f"00-{place.trace_id:032x}-{place.span_id:016x}-{place.trace_flags:02x}"))
        self._span = span
        self._judged = False
        self._token: Token[Context] | None = None

    def carried_by(self, event: MessageAccepted) -> MessageAccepted:
        return event.model_copy(update={"traceparent": self.traceparent})

    def ended(self, attributes: Attributes, *, error: str = "") -> None:
        self._judged = True
        self._span.set_attributes({**attributes, "error.type": error} if error else attributes)
        if error:
            self._span.set_status(Status(StatusCode.ERROR))

    def end(self, until: int | None = None) -> None:
        self._span.end(until)

    def __enter__(self) -> Self:
        self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._token is not None
        context.detach(self._token)
        if isinstance(error, Exception) and not self._judged:
            self.ended({}, error=type(error).__name__)  # no more of it: it may repeat what somebody said
        self.end()


class _Spans:
    def __init__(self, provider: TracerProvider, ids: "_Ids") -> None:
        self._tracer = provider.get_tracer("m3", __version__)
        self._ids = ids

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
    ) -> Span:
        linked = [Link(_place(link)) for link in links]
        parent: Context | None = None
        self._ids.next_trace = 0
        if traceparent:
            parent = trace.set_span_in_context(NonRecordingSpan(_place(traceparent)), Context())
        elif trace_id:
            around = trace.get_current_span().get_span_context()
            if around.is_valid:
                linked.append(Link(around))
            parent = Context()
            self._ids.next_trace = int(trace_id, 16)
        return _ExportedSpan(self._tracer.start_span(name, parent, SpanKind[kind], attributes, linked, since))


def _place(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


class _Ids(RandomIdGenerator):
    """A trace that begins here has the id of its message."""

    next_trace = 0

    def generate_trace_id(self) -> int:
        return self.next_trace or super().generate_trace_id()

    def is_trace_id_random(self) -> bool:
        return not self.next_trace


class _EvenSampler(Sampler):
    """Has a sampler that takes a ratio of all traces decide by the last 32 bits of their ids. OpenTelemetry's look at
    64, of which a UUID has its variant in the first two: of a ratio below a half nothing was left. Those that follow
    are counted up within a millisecond."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(self, parent_context: Context | None, trace_id: int, *what: Any, **more: Any) -> SamplingResult:
        return self._sampler.should_sample(parent_context, trace_id << 32, *what, **more)

    def get_description(self) -> str:
        return self._sampler.get_description()


@asynccontextmanager
async def exporting(endpoint: str, service: str) -> AsyncIterator[_Spans]:
    """Spans that a thread of OpenTelemetry's sends to the collector: 2,048 may wait for it, and then they are lost.

    What else there is to it, as headers and sampling, OpenTelemetry reads from its own variables.
    """
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")
    ids = _Ids()
    resource = Resource.create(
        {
            "service.name": f"m3-{service}",
            "service.version": __version__,
            "service.instance.id": str(uuid7()),
        }
    )
    provider = TracerProvider(resource=resource, id_generator=ids, shutdown_on_exit=False)
    provider.sampler = _EvenSampler(provider.sampler)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield _Spans(provider, ids)
    finally:
        # It has no deadline of its own, and no thread of ours must keep the process from ending.
        flushing = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
        flushing.start()
        await asyncio.to_thread(flushing.join, FLUSH_TIMEOUT)
