"""Names and labels as Prometheus' conventions have them, and nothing in them that grows without bound."""

import re
from pathlib import Path
from uuid import UUID

import pytest
from prometheus_client import REGISTRY, Metric

from m3 import __version__, metrics
from m3.errors import (
    BusFull,
    BusUnavailable,
    KeyReused,
    M3Error,
    MessageTooLong,
    NotRecorded,
    StoreUnavailable,
    ThreadFlooded,
)
from services.agent import model
from services.pusher import app
from tests.support.counting import counted

#: Each label with what bounds its values: what is written in the code.
BOUNDED = {
    "lane", "interface", "outcome", "route", "method", "status", "fate", "reason", "kind", "exchange", "queue", "state",
    "version", "le", "code",
}  # fmt: skip
OURS = sorted((metric for metric in REGISTRY.collect() if metric.name.startswith("m3_")), key=lambda each: each.name)

every_metric = pytest.mark.parametrize("metric", OURS, ids=lambda metric: metric.name)


def exposed() -> str:
    return metrics.exposition().decode()


def test_there_is_something_to_look_at() -> None:
    assert model, app  # with what they initialise
    assert len(OURS) > 30


@every_metric
def test_a_name_says_what_is_counted_in_base_units(metric: Metric) -> None:
    assert re.fullmatch("m3(_[a-z]+)+", metric.name)
    assert not set(metric.name.split("_")) & {
        "ms",
        "milliseconds",
        "minutes",
        "kib",
        "mib",
        "percent",
        "count",
        "total",
    }
    if metric.type == "histogram":
        assert metric.name.endswith(("_seconds", "_events"))


@every_metric
def test_a_counter_ends_in_total_and_nothing_else_does(metric: Metric) -> None:
    shown = re.search(rf"^# TYPE ({metric.name}\w*) (\w+)$", exposed(), re.MULTILINE)
    assert shown
    assert shown[1].endswith("_total") == (metric.type == "counter") == (shown[2] == "counter")


@every_metric
def test_a_help_text_is_a_sentence(metric: Metric) -> None:
    assert re.fullmatch(r"[A-Z][^\n]+\.", metric.documentation)


@every_metric
def test_no_label_is_of_what_people_make_up(metric: Metric) -> None:
    assert {label for sample in metric.samples for label in sample.labels} <= BOUNDED


@pytest.mark.parametrize(
    "error",
    [
        MessageTooLong("…"),
        ThreadFlooded("…"),
        KeyReused("…"),
        NotRecorded(UUID(int=1)),
        BusFull("…"),
        BusUnavailable("…"),
        StoreUnavailable("…"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_door_may_refuse_for_is_there_from_the_start(error: M3Error) -> None:
    assert counted("m3_messages_total", lane="user", interface="websocket", outcome=error.code) >= 0


@pytest.mark.parametrize(
    "series",
    [
        'm3_messages_total{interface="http_api",lane="api",outcome="recorded"}',
        'm3_fates_total{fate="shed",lane="api"}',
        'm3_recorded_messages_total{lane="assistant"}',
        'm3_socket_closes_total{reason="slow"}',
        'm3_publish_failures_total{exchange="chat.in",reason="full"}',
        'm3_publish_seconds_count{exchange="default"}',
        'm3_queue_wait_seconds_count{queue="agent.user"}',
        'm3_dead_letters_total{queue="recorder"}',
        'm3_turns_total{lane="user",outcome="failed"}',
        'm3_model_errors_total{kind="timeout"}',
    ],
)
def test_what_is_known_beforehand_is_there_before_it_happens(series: str) -> None:
    shown = exposed()
    assert any(
        line.split("{")[0] == series.split("{", maxsplit=1)[0]
        and set(re.findall(r'\w+="[^"]*"', line)) == set(re.findall(r'\w+="[^"]*"', series))
        for line in shown.splitlines()
    )


def test_each_is_explained_where_one_looks_for_it() -> None:
    text = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text("utf-8")
    section = text.partition("\n## What it counts\n")[2].partition("\n## ")[0]
    shown = set(re.findall(r"^# TYPE (m3_\w+)", exposed(), re.MULTILINE))
    assert set(re.findall(r"`(m3_\w+)`", section)) == shown


def test_the_version_is_told() -> None:
    assert counted("m3_build_info", version=__version__) == 1
