"""What an operator can set, and how a mistake is told."""

from pathlib import Path

import pytest

from m3.errors import StartError
from m3.settings import Settings, read_settings
from m3.threads import Policy

SECRETS = {
    "BROKER_URL": "amqp://user:hush-broker@host/",
    "DATABASE_URL": "postgresql://user:hush-database@host/room",
    "LLM_API_KEY": "hush-key",
}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_a_room_needs_no_settings() -> None:
    settings = read_settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8888)
    assert settings.broker_url.get_secret_value() == "memory://"
    assert (settings.database_url, settings.data_dir) == (None, Path("data"))
    assert (settings.llm_base_url, settings.llm_model) == (None, "demo")
    assert settings.llm_api_key.get_secret_value() == "none"


def test_a_turn_has_time_before_its_post_gives_up() -> None:
    settings = read_settings()
    assert settings.record_timeout + settings.turn_timeout < settings.reply_timeout


#: What somebody may do so often.
LIMITED = ("posts", "feeds", "batches", "socket_messages", "sockets", "tickets", "logins")


def test_every_setting_is_described_and_is_the_variable_of_the_same_name(monkeypatch: pytest.MonkeyPatch) -> None:
    samples: dict[object, str] = {
        bool: "1",
        int: "7",
        int | None: "7",
        float: "7.5",
        Path: "elsewhere",
        Policy: "ignore",
    }
    within_bounds = {
        "search": "no",
        "log_level": "debug",
        "otel_exporter_otlp_endpoint": "http://collector:4318",
        "body_limit": "2000",
        "batch_limit": "2000",
        "frame_limit": "2000",
        "socket_buffer": "200000",
        "trusted_proxies": "10.0.0.1",
        "auth": "required",
        "tenants": "default,acme",
        "token_keys": f"one:{'0' * 64}",
        "content_keys": f"one:{'0' * 64}",
        "access_token_ttl": "60",
        "sign_in_ttl": "120",
        "origins": "https://app.example.com",
        "oidc_issuer": "https://id.example.com",
        **{f"limit_{what}": "7/second" for what in LIMITED},
    }
    for name, field in Settings.model_fields.items():
        assert field.description
        sample = within_bounds.get(name) or samples.get(field.annotation, "x://")
        monkeypatch.setenv(name.upper(), sample)
    default, settings = Settings.model_construct(), read_settings()
    unread = [name for name in Settings.model_fields if getattr(settings, name) == getattr(default, name)]
    assert unread == []


def test_an_empty_variable_is_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "DATABASE_URL", "LLM_BASE_URL"):
        monkeypatch.setenv(name, "")
    settings = read_settings()
    assert (settings.port, settings.database_url, settings.llm_base_url) == (8888, None, None)


def test_other_programs_variables_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTS", "many")
    assert read_settings().port == 8888


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("BROKER_URL", "amqp://room:hush/p@broker/"),
        ("DATABASE_URL", "postgresql://room:hu@sh/p@database/room"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("DATABASE_POOL", "1"),
        ("CONTEXT_MESSAGES", "-1"),
        ("CONTEXT_TOKENS", "-1"),
        ("SUMMARISE", "perhaps"),
        ("LLM_ATTEMPTS", "0"),
        ("USER_POLICY", "shout"),
        ("API_POLICY", "Coalesce"),
        ("USER_TURNS_IN_A_ROW", "0"),
        ("API_TTL", "0"),
        ("API_CAP", "0"),
        ("BATCH_MESSAGES", "1001"),
        ("BATCH_TOKENS", "0"),
        ("MERGE_WINDOW", "-1"),
        ("MERGE_WINDOW", "inf"),
        ("API_BOUND", "0"),
        ("METRICS_PORT", "65536"),
        ("TURN_TIMEOUT", "0"),
        ("TURN_TIMEOUT", "nan"),
        ("AGENT_CONCURRENCY", "0"),
        ("SWEEP_INTERVAL", "0"),
        ("REPLY_TIMEOUT", "soon"),
        ("RECORD_TIMEOUT", "-5"),
        ("LINGER", "-0.1"),
        ("GRACE", "0"),
        ("GRACE", "inf"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("LOG_LEVEL", "loud"),
        ("TRUSTED_PROXIES", "*"),
        ("TRUSTED_PROXIES", "10.0.0.1, *"),
        ("TRUSTED_PROXIES", "0.0.0.0/0"),
        ("TRUSTED_PROXIES", "::/0"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "10.0.0.1;10.0.0.2"),
        ("TRUSTED_PROXIES", "10.0.0.1,"),
        ("TRUSTED_PROXIES", "proxy.local"),
    ],
)
def test_a_wrong_variable_is_named_in_a_sentence_that_tells_no_secret(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for secret, content in SECRETS.items():
        monkeypatch.setenv(secret, content)
    monkeypatch.setenv(name, value)
    with pytest.raises(StartError, match=rf"^{name}: \w.*[^.]\.$") as refused:
        read_settings()
    assert "hush" not in str(refused.value)
    assert refused.value.__suppress_context__  # pydantic's own account repeats the input
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "proxies", ["10.0.0.1", " 10.0.0.0/8 ,192.168.1.1", "fd00::1,fd00::/8", "127.0.0.1/32", "", None]
)
def test_proxies_are_addresses_and_networks(proxies: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if proxies is not None:
        monkeypatch.setenv("TRUSTED_PROXIES", proxies)
    assert read_settings().trusted_proxies == (proxies or "")


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    for secret, content in SECRETS.items():
        monkeypatch.setenv(secret, content)
    settings = read_settings()
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "hush" not in shown
    assert settings.llm_api_key.get_secret_value() == "hush-key"


def test_a_secret_comes_from_a_file_where_the_variable_is_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llm_api_key").write_text("from the file\n")
    assert read_settings(tmp_path).llm_api_key.get_secret_value() == "from the file"
    monkeypatch.setenv("LLM_API_KEY", "from the variable")
    assert read_settings(tmp_path).llm_api_key.get_secret_value() == "from the variable"


def test_a_file_of_keys_that_says_nothing_is_as_none(tmp_path: Path) -> None:
    """Compose wants each file of its secrets to be there."""
    (tmp_path / "content_keys").write_text("")
    (tmp_path / "token_keys").write_text(" \n")
    settings = read_settings(tmp_path)
    assert (settings.content_keys, settings.token_keys) == (None, None)


def test_a_file_that_cannot_be_read_is_named_in_a_sentence_that_tells_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_URL", "amqp://room:hush@broker/")
    (tmp_path / "llm_api_key").write_bytes(b"hush\xff")
    with pytest.raises(StartError, match="llm_api_key") as refused:
        read_settings(tmp_path)
    assert "hush" not in str(refused.value)
    assert refused.value.__suppress_context__
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("amqp://room@broker:5672/", "amqp://room:p%2Fa%40%3A%20s@broker:5672/"),
        ("amqp://room:own@broker/", "amqp://room:own@broker/"),
        ("amqp://broker/", "amqp://broker/"),
    ],
)
def test_a_password_of_its_own_goes_into_a_url_that_has_none(url: str, whole: str, tmp_path: Path) -> None:
    (tmp_path / "broker_url").write_text(url)
    (tmp_path / "broker_password").write_text("p/a@: s\n")
    assert read_settings(tmp_path).broker_url.get_secret_value() == whole


def test_the_databases_password_may_stand_apart_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://room@postgres/room")
    monkeypatch.setenv("DATABASE_PASSWORD", "hush")
    settings = read_settings()
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://room:hush@postgres/room"
    assert "hush" not in repr(settings)
