"""Prometheus's own tool on its configuration, and what its rules promise."""

import re
import subprocess
from collections import defaultdict
from collections.abc import Callable

import pytest
import yaml

from tests.support.prometheus import ALERTS, rules

FOLDER = ALERTS.parent
RUNBOOK = FOLDER.with_name("README.md")
RULES = rules()

every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


@pytest.fixture
def promtool(needed: Callable[[str], str]) -> Callable[..., str]:
    """Runs it; returns what it says."""

    def promtool(*command: str) -> str:
        done = subprocess.run(
            [needed("promtool"), *command], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return promtool


def test_prometheus_understands_its_configuration_and_the_rules(promtool: Callable[..., str]) -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "config", "prometheus.yml")


def test_alerts_fire_when_they_should_and_not_before(promtool: Callable[..., str]) -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts.test.yml")


def test_every_alert_is_shown_firing_and_silent() -> None:
    shown = defaultdict(set)
    for case in yaml.safe_load((FOLDER / "alerts.test.yml").read_text())["tests"]:
        for expected in case["promql_expr_test"]:
            for rule in RULES:
                named = f'alertname="{rule["alert"]}"'
                if any(named in sample["labels"] for sample in expected["exp_samples"]):
                    shown[rule["alert"]].add("firing")
                elif named in expected["expr"] or "=~" in expected["expr"]:
                    shown[rule["alert"]].add("silent")
    assert shown == {rule["alert"]: {"firing", "silent"} for rule in RULES}


@every_rule
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"deploy/README.md#{str(rule['alert']).lower()}"


def test_the_runbook_has_every_alert_in_the_order_of_the_rules() -> None:
    alerts = re.search(r"^## Alerts$(.*?)^## ", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL)
    assert alerts
    assert re.findall(r"^### (\S+)$", alerts.group(1), re.MULTILINE) == [rule["alert"] for rule in RULES]
