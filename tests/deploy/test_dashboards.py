"""What can be told of the dashboards without a Prometheus; test_observing.py asks one."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from m3.metrics import exposition
from tests.support.prometheus import CONFIGURATION, DASHBOARDS, DEPLOY, panels, queries, rules

#: What Grafana knows how to write: https://grafana.com/docs/grafana/latest/panels-visualizations/configure-standard-options/
UNITS = {"short", "cps", "reqps", "s", "bytes", "percentunit"}

every_dashboard = pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)


def read(file: Path) -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads(file.read_text())
    return dashboard


def test_there_is_a_dashboard_for_each_who_looks() -> None:
    assert [file.name for file in DASHBOARDS] == ["agents.json", "queues.json", "room.json", "services.json"]
    assert len({read(file)["uid"] for file in DASHBOARDS}) == len(DASHBOARDS)


@every_dashboard
def test_a_dashboard_shows_the_last_hour_of_any_prometheus_and_keeps_up(file: Path) -> None:
    dashboard = read(file)
    assert dashboard["title"]
    assert dashboard["description"]
    assert dashboard["time"] == {"from": "now-1h", "to": "now"}
    assert dashboard["refresh"]
    assert dashboard["annotations"] == {"list": []}
    assert [(variable["name"], variable["type"]) for variable in dashboard["templating"]["list"]] == [
        ("datasource", "datasource")
    ]


@every_dashboard
def test_every_panel_says_what_it_shows_and_what_to_do(file: Path) -> None:
    for panel in panels(file):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        shown = panel["fieldConfig"]["defaults"]
        assert shown["unit"] in UNITS, panel["title"]
        first, *rest = shown["thresholds"]["steps"]
        assert first["value"] is None, panel["title"]
        assert [step["value"] for step in rest] == sorted(step["value"] for step in rest), panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        assert panel["targets"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


@every_dashboard
def test_panels_have_places_of_their_own(file: Path) -> None:
    every = read(file)["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    assert len({panel["title"] for panel in every}) == len(every)
    for panel in every:
        place = panel["gridPos"]
        assert place["x"] >= 0, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
    for one, other in combinations(every, 2):
        a, b = one["gridPos"], other["gridPos"]
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, f"{one['title']} lies on {other['title']}"


def test_no_query_names_a_metric_that_we_do_not_count() -> None:
    families = re.findall(r"^# TYPE (\S+) (\S+)$", exposition().decode(), re.MULTILINE)
    suffixes = {"histogram": ("_bucket", "_count", "_sum")}
    counted = {name + suffix for name, kind in families for suffix in suffixes.get(kind, ("",))}
    asked = [rule["expr"] for rule in rules()] + [query for file in DASHBOARDS for query in queries(file)]
    named = {name for query in asked for name in re.findall(r"\bm3_\w+", query)}
    assert named
    assert named - counted == set()


def test_grafana_finds_what_is_provisioned() -> None:
    grafana = yaml.safe_load((DEPLOY / "compose.observe.yml").read_text())["services"]["grafana"]
    mounted = {
        inside: DEPLOY.parent / outside for outside, inside, _ in (one.split(":") for one in grafana["volumes"][:2])
    }
    provisioning = mounted["/etc/grafana/provisioning"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/room.yml").read_text())["providers"]
    (datasource,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert list(mounted[provider["options"]["path"]].iterdir())
    assert mounted[str(home.parent)].joinpath(home.name).exists()
    assert datasource["url"] == "http://prometheus:9090"
    scraped = yaml.safe_load(CONFIGURATION.read_text())["global"]["scrape_interval"]
    assert datasource["jsonData"]["timeInterval"] == scraped
