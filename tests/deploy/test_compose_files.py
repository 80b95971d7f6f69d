"""What the compose files say agrees with the code."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from m3.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = ("gateway", "pusher", "recorder", "agent")
OVERRIDES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "deploy").glob("compose.*.yml"))
#: Settings that are not an operator's in a container: the image has them, or they are files.
FIXED = {"HOST", "PORT", "DATA_DIR", "METRICS_PORT"}
#: What OpenTelemetry's own library reads.
OPENTELEMETRY = {"OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"}
#: The image of all services.
OURS = "${M3_IMAGE:-m3-room:local}"
SECRETS = {"BROKER_PASSWORD", "DATABASE_PASSWORD", "LLM_API_KEY", "TOKEN_KEYS", "CONTENT_KEYS"}


def seconds(duration: str) -> int:
    return int(re.fullmatch(r"(?:\$\{\w+:-)?(\d+)s\}?", duration).group(1))  # type: ignore[union-attr]


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in ("docker-compose.yml", *OVERRIDES):
        for name, service in yaml.safe_load((ROOT / file).read_text())["services"].items():
            yield f"{file} {name}", service


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_can_be_told_every_setting(service: str) -> None:
    told = COMPOSE["services"][service]["environment"].keys()
    assert told == {name.upper() for name in Settings.model_fields} - FIXED - SECRETS | OPENTELEMETRY
    assert set(COMPOSE["services"][service]["secrets"]) == {name.lower() for name in SECRETS}


def test_the_example_of_an_env_file_has_every_variable_with_its_default() -> None:
    example = (ROOT / ".env.example").read_text()
    shown = dict(re.findall(r"^#([A-Z0-9_]+)=(.*)$", example, re.MULTILINE))
    used = set(COMPOSE["services"]["agent"]["environment"])
    for file in ("docker-compose.yml", *OVERRIDES):
        used |= set(re.findall(r"\$\{([A-Z0-9_]+)", (ROOT / file).read_text()))
    assert used - shown.keys() == set()
    assert {"LLM_BASE_URL", "LLM_MODEL", "ADMIN_PORT"} <= shown.keys()
    defaults = dict(re.findall(r"\$\{([A-Z0-9_]+):-([^}]*)\}", (ROOT / "docker-compose.yml").read_text()))
    for name, field in Settings.model_fields.items():
        if name.upper() in shown.keys() - defaults.keys() - FIXED:
            default = field.default
            told = "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
            assert shown[name.upper()] == told
    for name, default in defaults.items():
        assert shown[name] == default


def test_no_turn_is_broken_off_by_a_stop() -> None:
    turn, grace = Settings.model_fields["turn_timeout"].default, Settings.model_fields["grace"].default
    for service in SERVICES:
        patience = seconds(COMPOSE["services"][service]["stop_grace_period"])
        assert patience > (turn + grace if service == "agent" else grace)


def test_a_service_has_no_more_rights_than_it_needs() -> None:
    for service in (*SERVICES, "nginx"):
        container = COMPOSE["services"][service]
        assert container["read_only"]
        assert container["cap_drop"] == ["ALL"]
        assert container["security_opt"] == ["no-new-privileges:true"]
    assert re.search(r"^USER (?!0)\d+", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE)


def test_every_container_has_limits_a_health_check_and_a_pinned_image() -> None:
    for name, container in containers():
        if "image" in container:
            assert {"mem_limit", "cpus", "restart", "stop_grace_period", "logging"} <= container.keys(), name
            assert re.search(r":(?!latest)[\w${}.:-]+$", container["image"]), name
            assert "healthcheck" in container or container["image"] == OURS, name  # whose image has one


def test_one_service_builds_the_image_for_all() -> None:
    assert [name for name, container in containers() if "build" in container] == ["docker-compose.yml agent"]
    assert {service["image"] for name, service in COMPOSE["services"].items() if name in SERVICES} == {OURS}


def test_ports_are_published_on_the_loopback_address_until_a_setting_says_otherwise() -> None:
    """And whoever opens the room's to a network does not open the operators'."""
    for name, container in containers():
        setting = "BIND_ADDRESS" if name.endswith(" nginx") else "CONSOLE_ADDRESS"
        for port in container.get("ports", ()):
            assert port.startswith(f"${{{setting}:-127.0.0.1}}:"), name


def test_a_broker_holds_publishers_up_before_its_container_is_out_of_memory() -> None:
    configuration = (ROOT / "deploy/rabbitmq/rabbitmq.conf").read_text()
    alarm = re.search(r"^vm_memory_high_watermark.absolute = (\d+)MB$", configuration, re.MULTILINE)
    assert alarm
    limits = [container["mem_limit"] for _, container in containers() if "rabbitmq" in container.get("image", "")]
    assert limits == ["1g"] * 3
    assert int(alarm[1]) * 10**6 < 0.6 * 2**30
