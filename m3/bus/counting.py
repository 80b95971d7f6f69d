"""What both buses count."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from time import perf_counter, time

from m3 import metrics
from m3.errors import BusFull, BusUnavailable, Unroutable
from m3.topology import Queue, Route

_seconds = cache(metrics.PUBLISH_SECONDS.labels)
_wait = cache(metrics.QUEUE_WAIT.labels)


@contextmanager
def publishing(route: Route) -> Iterator[None]:
    """Around one publish."""
    exchange = route.exchange or metrics.DEFAULT_EXCHANGE
    began = perf_counter()
    try:
        yield
    except BusFull:
        metrics.PUBLISH_FAILURES.labels(exchange, "full").inc()
        raise
    except Unroutable:
        metrics.PUBLISH_FAILURES.labels(exchange, "unroutable").inc()
        raise
    except BusUnavailable:
        metrics.PUBLISH_FAILURES.labels(exchange, "unavailable").inc()
        raise
    if route.confirmed:
        _seconds(exchange).observe(perf_counter() - began)


def waited(queue: Queue, published: Iterable[float]) -> None:
    """A consumer took bodies that were published at these times, in seconds since the epoch. What comes again is not
    among them: it waited for its consumer's end."""
    now, wait = time(), _wait(queue.name)
    for then in published:
        wait.observe(max(0.0, now - then))  # the publisher's clock may be ahead of ours
