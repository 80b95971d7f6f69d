"""What a process counts, in the words of Prometheus, and the only importer of prometheus_client.

Values of labels that are known beforehand are there from the start, at 0: what appears with its first event has no rate
then, and an alert would miss it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import product
from typing import TypeVar, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)

from m3 import __version__
from m3.events import Fate, Interface, Lane, OutsideSource, PassedOverFate, TurnOutcome
from m3.topology import EXCHANGES, QUEUES

__all__ = ["CONTENT_TYPE_LATEST", "exposition"]

# A second series of each counter, for formats that we do not speak.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's oversight

#: Bounds of what a person waits for, in seconds.
_WAITS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)
#: Bounds of what passes in a moment while all is well, in seconds.
_MOMENTS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
#: Bounds of what may also pile up, in seconds.
_LAGS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

_OUTSIDE, _LANES, _INTERFACES = get_args(OutsideSource), get_args(Lane), get_args(Interface)
#: What a door answers: that it is recorded, or the code of why it was refused.
OUTCOMES = (
    "recorded",
    "invalid_message",
    "message_too_long",
    "key_reused",
    "thread_flooded",
    "not_recorded",
    "not_handed_in",
    "overloaded",
    "broker_unavailable",
    "database_unavailable",
)
#: What Prometheus calls the exchange without a name.
DEFAULT_EXCHANGE = "default"
_EXCHANGES = (DEFAULT_EXCHANGE, *(exchange.name for exchange in EXCHANGES))
_QUEUES = tuple(queue.name for queue in QUEUES if queue.dead_letters)

M = TypeVar("M", Counter, Gauge, Histogram)


def _known(metric: M, *values: Iterable[str]) -> M:
    """With a series for each combination of the values of its labels."""
    for labels in product(*values):
        metric.labels(*labels)
    return metric


# ---- The doors

MESSAGES = _known(
    Counter(
        "m3_messages",
        "Messages that came in, by what their door answered.",
        ["lane", "interface", "outcome"],
    ),
    _OUTSIDE,
    _INTERFACES,
    OUTCOMES,
)
RECORD_WAIT = _known(
    Histogram(
        "m3_record_wait_seconds",
        "From a message's coming in until its door knew that it is recorded; what came together counts once.",
        ["interface"],
        buckets=_MOMENTS,
    ),
    _INTERFACES,
)
HTTP_REQUESTS = Counter("m3_http_requests", "HTTP requests that were answered.", ["route", "method", "status"])
HTTP_SECONDS = Histogram(
    "m3_http_request_duration_seconds",
    "From a request's head to the end of its answer.",
    ["route", "method"],
    buckets=(0.005, 0.01, 0.025, *_WAITS),
)
REFUSALS = _known(
    Counter(
        "m3_refusals", "Requests, sockets and frames of those who may not ask for that, by the code of why.", ["code"]
    ),
    ["not_signed_in", "forbidden", "not_found", "rate_limited", "foreign_origin", "wrong_host"],
)
LOGINS = _known(
    Counter("m3_logins", "Passwords that somebody signed in with, or tried to.", ["outcome"]),
    ["done", "refused", "rate_limited"],
)

# ---- The recorder

BATCH_EVENTS = Histogram(
    "m3_recorder_batch_events",
    "Events that were written in one transaction.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
TRANSACTION_SECONDS = Histogram(
    "m3_recorder_transaction_seconds", "What one transaction of the recorder took.", buckets=_MOMENTS
)
RECORDED = _known(Counter("m3_recorded_messages", "Messages that are new in the table.", ["lane"]), _LANES)
FATES = _known(
    Counter("m3_fates", "Messages that got a fate; pending are those that got another turn.", ["lane", "fate"]),
    _OUTSIDE,
    get_args(Fate),
)
RECORD_LAG = _known(
    Histogram(
        "m3_record_lag_seconds", "From a message's acceptance to the commit that made it last.", ["lane"], buckets=_LAGS
    ),
    _LANES,
)

# ---- The pusher

SOCKETS = Gauge("m3_sockets", "Open sockets.")
THREADS = Gauge("m3_threads", "Threads that this pusher hears.")
DELIVERIES = Counter("m3_deliveries", "Events of threads that were handed to sockets, once for each socket.")
PUSH_LAG = _known(
    Histogram(
        "m3_push_lag_seconds",
        "From a message's timestamp, which the database gives it, until it was handed to the sockets of its thread.",
        ["lane"],
        buckets=_LAGS,
    ),
    _LANES,
)
SOCKET_CLOSES = Counter("m3_socket_closes", "Sockets that ended, by why.", ["reason"])

# ---- The agent

TURN_PLACES = Gauge("m3_turn_places", "Turns of the agent that may run at once.")
TURNS = _known(
    Counter("m3_turns", "Turns of the agent that ended.", ["lane", "outcome"]), _OUTSIDE, get_args(TurnOutcome)
)
TURNS_RUNNING = Gauge("m3_turns_running", "Turns of the agent that run just now.")
TURN_SECONDS = _known(
    Histogram("m3_turn_duration_seconds", "From a turn's start to its end at the model.", ["lane"], buckets=_WAITS),
    _OUTSIDE,
)
FIRST_TOKEN_SECONDS = _known(
    Histogram(
        "m3_turn_first_token_seconds", "From a turn's start to the model's first text.", ["lane"], buckets=_WAITS
    ),
    _OUTSIDE,
)
TOKENS = _known(Counter("m3_model_tokens", "Tokens that the model read and wrote.", ["kind"]), ["prompt", "completion"])
MODEL_ERRORS = Counter("m3_model_errors", "Times that the model was asked in vain.", ["kind"])
PASSED_OVER = _known(
    Counter("m3_messages_passed_over", "Messages that got a fate without a turn.", ["fate"]), get_args(PassedOverFate)
)

# ---- The bus

PUBLISH_SECONDS = _known(
    Histogram(
        "m3_publish_seconds", "From a publish until the broker had confirmed it.", ["exchange"], buckets=_MOMENTS
    ),
    _EXCHANGES,
)
PUBLISH_FAILURES = _known(
    Counter("m3_publish_failures", "Publishes that the broker did not take.", ["exchange", "reason"]),
    _EXCHANGES,
    ["full", "unroutable", "unavailable"],
)
QUEUE_WAIT = _known(
    Histogram("m3_queue_wait_seconds", "From a body's publish until a consumer took it.", ["queue"], buckets=_LAGS),
    _QUEUES,
)
DEAD_LETTERS = _known(Counter("m3_dead_letters", "Bodies that a consumer rejected.", ["queue"]), _QUEUES)
BROKER_CONNECTED = Gauge("m3_broker_connected", "Whether the broker is connected, 1 or 0.")
BROKER_LOSSES = Counter("m3_broker_losses", "Times that the connection to the broker was lost.")

# ---- The store

POOL_WAIT = Histogram(
    "m3_pool_wait_seconds", "What waiting for a connection to the database took, its making included.", buckets=_MOMENTS
)
POOL_CONNECTIONS = _known(Gauge("m3_pool_connections", "Connections to the database.", ["state"]), ["idle", "busy"])
DATABASE_FAILURES = Counter("m3_database_failures", "Commands that failed because the database was away.")

# ---- The process

LOOP_LAG = Histogram("m3_event_loop_lag_seconds", "How late the event loop wakes a task that sleeps.", buckets=_MOMENTS)
Info("m3_build", "The version that runs.").info({"version": __version__})


@contextmanager
def counted(*gauges: tuple[Gauge, Callable[[], int]]) -> Iterator[None]:
    """Have the gauges counted whenever somebody looks, inside the block."""
    for gauge, count in gauges:
        gauge.set_function(count)
    try:
        yield
    finally:
        for gauge, _ in gauges:
            gauge.set_function(lambda: 0)


def age(since: datetime) -> float:
    """Seconds since then; 0 where the clock that told it is ahead of ours."""
    return max(0.0, (datetime.now(UTC) - since).total_seconds())


def exposition() -> bytes:
    """All of it, as Prometheus scrapes it."""
    return generate_latest()
