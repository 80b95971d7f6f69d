"""What an operator can set: the only reader of the environment. Each field is the variable of the same name, or where
that is not set the file of that name in ``SECRETS``."""

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from m3.errors import StartError
from m3.tenants import TENANT_PATTERN
from m3.threads import DAY, MAX_CAP, Policy

#: Where containers have their secrets, as files: these appear in no listing of processes or containers.
SECRETS = Path("/run/secrets")

#: Addresses that only this machine reaches.
LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))

_UNESCAPED = "not a URL; characters such as / and @ in a password must be escaped (%2F, %40)"

DEFAULT_SYSTEM_PROMPT = (
    "You are the agent of a live room. Answer briefly and kindly, in the language you are spoken to."
)


class Settings(BaseSettings):
    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, allow_inf_nan=False)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8888, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    data_dir: Path = Field(Path("data"), description="folder of the embedded PostgreSQL")

    auth: Literal["open", "required"] | None = Field(
        None,
        description="open: whoever reaches the room may read and write, only on a loopback address; required: people "
        "sign in and programs have keys; unset is open on a loopback address, and required elsewhere",
    )
    auth_open_anywhere: bool = Field(False, description="let AUTH=open on an address that others reach")
    tenants: str = Field("default", description="rooms that never meet, by name, with commas")
    token_keys: SecretStr | None = Field(
        None,
        description="name:64 hex digits, with commas: the first signs access tokens, all are good; "
        "unset makes one in DATA_DIR",
    )
    access_token_ttl: float = Field(600, ge=30, le=3600, description="seconds that an access token is good for")
    sign_in_ttl: float = Field(
        30 * DAY, ge=60, le=400 * DAY, description="seconds after which somebody who was not here has to sign in again"
    )
    sign_up: bool = Field(False, description="let whoever is sent an invite and has no account make one")
    oidc_issuer: str | None = Field(
        None,
        pattern="^https?://",
        description="who else's tokens are good, such as https://id.example.com; unset is nobody",
    )
    oidc_audience: str | None = Field(None, description="whom the issuer's tokens must be meant for")
    oidc_tenant: str = Field("default", description="the tenant of people with the issuer's tokens")
    content_keys: SecretStr | None = Field(
        None,
        description="name:64 hex digits, with commas: the first seals what is said, all open it; with off before them "
        "they only open; unset seals nothing",
    )
    search: bool = Field(
        True,
        description="have messages found by their words as they are recorded; off, once `m3 content index` was run",
    )
    origins: str = Field(
        "", description="pages of other hosts that may speak to the room, such as https://app.example.com, with commas"
    )
    limit_posts: str = Field("1200/minute", description="most messages of one person over HTTP, also in batches")
    limit_feeds: str = Field("60000/minute", description="most messages of one producer key, by whatever door")
    limit_batches: str = Field("600/minute", description="most batches of messages of one principal")
    limit_changes: str = Field(
        "120/minute", description="most requests of one principal that change something else: members, settings, keys"
    )
    limit_socket_messages: str = Field(
        "1200/minute", description="most messages of one person over sockets, on a pusher"
    )
    limit_sockets: str = Field("120/minute", description="most new sockets of one principal, on a pusher")
    limit_tickets: str = Field("120/minute", description="most tickets for sockets of one principal")
    limit_logins: str = Field(
        "10/5 minutes",
        description="most wrong passwords for one account from one address, on all gateways together",
    )
    limit_sign_ups: str = Field(
        "60/hour",
        description="most attempts from one address to make an account by an invite, on all gateways together",
    )

    broker_password: SecretStr | None = Field(None, description="password for a BROKER_URL that has none")
    broker_url: SecretStr = Field(
        SecretStr("memory://"), description="amqp://user:password@host:5672/vhost, or memory:// for one process"
    )
    database_password: SecretStr | None = Field(None, description="password for a DATABASE_URL that has none")
    database_url: SecretStr | None = Field(
        None, description="postgresql://user:password@host:5432/database; unset starts the embedded PostgreSQL"
    )
    database_pool: int = Field(10, ge=2, le=1000, description="connections to PostgreSQL of each process")
    database_timeout: float = Field(10, gt=0, description="seconds that one command to PostgreSQL may take")
    acquire_timeout: float = Field(5, gt=0, description="seconds to wait for a free connection to PostgreSQL")
    heartbeat: int = Field(10, ge=1, description="seconds between heartbeats to the broker; three missed ones end it")
    publish_timeout: float = Field(4, gt=0, description="seconds that the broker may take to confirm a message")

    llm_base_url: str | None = Field(
        None, description="an OpenAI-compatible server, such as http://host:8000/v1; unset uses the demo model"
    )
    llm_model: str = Field("demo", description="name of the model")
    llm_api_key: SecretStr = Field(SecretStr("none"), description="key for the model's server")
    system_prompt: str = Field(DEFAULT_SYSTEM_PROMPT, description="what the agent is told before every turn")
    context_tokens: int = Field(
        8000, ge=0, le=10_000_000, description="tokens of what was said before that the model is shown"
    )
    context_messages: int = Field(200, ge=0, le=1000, description="most earlier messages that the model is shown")
    summarise: bool = Field(False, description="have the model sum up what no longer fits, for later turns")
    turn_timeout: float = Field(60, gt=0, description="seconds that one turn may take in all, retries included")
    llm_attempts: int = Field(3, ge=1, le=100, description="times that the model is asked before a turn fails")
    llm_open_end: bool = Field(
        False, description="take a streamed reply as whole that ends without a finish_reason, as some servers' do"
    )
    user_policy: Policy = Field("each", description="what people's messages get: each, coalesce, interrupt or ignore")
    api_policy: Policy = Field("coalesce", description="what programs' messages get, likewise")
    user_turns_in_a_row: int = Field(
        3, ge=1, le=1000, description="turns for people after which programs that wait get one"
    )
    api_ttl: float = Field(
        120, ge=0.001, le=DAY, description="seconds after which a program's message is too old to be answered"
    )
    api_cap: int = Field(
        200,
        ge=1,
        le=MAX_CAP,
        description="most messages of programs that wait in a thread; past it the oldest are shed",
    )
    batch_messages: int = Field(50, ge=1, le=1000, description="most messages that one reply answers")
    batch_tokens: int = Field(4000, ge=1, description="most tokens of messages that one reply answers")
    merge_window: float = Field(
        5, ge=0, le=DAY, description="seconds in which a text that programs repeat is answered once; 0 answers each"
    )
    api_bound: int = Field(
        1000, ge=1, le=10_000, description="messages of programs waiting in a thread past which more get 429"
    )
    agent_concurrency: int = Field(16, ge=1, le=1000, description="turns that one agent runs side by side")
    sweep_interval: float = Field(
        15, gt=0, description="seconds between an agent's looks for messages that no announcement brought to it"
    )

    reply_timeout: float = Field(90, gt=0, description="seconds that a POST waits for its reply before it gets 202")
    record_timeout: float = Field(
        4.5, gt=0, description="seconds from a message's coming in until it must be recorded, or the answer is 503"
    )
    message_limit: int = Field(16 * 1024, ge=1, le=1024**2, description="longest message, in bytes of UTF-8")
    body_limit: int = Field(64 * 1024, ge=1024, le=16 * 1024**2, description="longest request body, in bytes")
    batch_limit: int = Field(
        1024**2, ge=1024, le=16 * 1024**2, description="longest request body with several messages, in bytes"
    )
    frame_limit: int = Field(64 * 1024, ge=1024, le=16 * 1024**2, description="longest frame of a socket, in bytes")
    ping_interval: float = Field(
        25, gt=0, description="seconds between pings of a socket, and until one without an answer is closed"
    )
    socket_buffer: int = Field(
        1024**2, ge=128 * 1024, description="most that may wait for one socket, in bytes, before it is too slow"
    )
    sockets_per_thread: int | None = Field(
        None, ge=1, description="most sockets that one thread may have, on all pushers together; unset is unlimited"
    )
    sockets_per_address: int | None = Field(
        None, ge=1, description="most sockets that one client address may have on a pusher; unset is unlimited"
    )
    trusted_proxies: str = Field(
        "", description="addresses or networks, with commas, whose X-Forwarded-For tells the client's address"
    )
    linger: float = Field(
        5, ge=0, description="seconds for which a thread is still heard that no socket or event stream listens to"
    )
    grace: int = Field(10, ge=1, description="seconds that a process may take to stop; an agent has its turn's besides")

    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="port on which an agent or recorder of its own tells its health and metrics"
    )
    edge_url: str | None = Field(
        None, description="where clients come in, such as http://localhost:8888; `m3 doctor` looks whether they do"
    )
    otel_exporter_otlp_endpoint: str | None = Field(
        None,
        pattern="^https?://",
        description="an OTLP/HTTP collector of spans, such as http://host:4318; unset sends none",
    )
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="least severe level logged")

    @property
    def auth_required(self) -> bool:
        """Whether the room asks who somebody is."""
        return self.auth == "required" if self.auth else self.host not in LOOPBACK

    @field_validator("token_keys", "content_keys")
    @classmethod
    def _says_something(cls, keys: SecretStr | None) -> SecretStr | None:
        """A file that is there, as containers must have it, and empty is as none."""
        return keys if keys is not None and keys.get_secret_value().strip() else None

    @property
    def tenant_names(self) -> tuple[str, ...]:
        """In their order, of which the first has the first operator."""
        return tuple(map(str.strip, self.tenants.split(",")))

    @field_validator("tenants")
    @classmethod
    def _are_tenants(cls, tenants: str) -> str:
        names = [name.strip() for name in tenants.split(",")]
        for name in names:
            if re.fullmatch(TENANT_PATTERN, name) is None or names.count(name) > 1:
                raise ValueError(
                    f"must be different names of up to 32 small letters, digits and -, and {name!r} is not"
                )
        return tenants

    @field_validator("broker_url")
    @classmethod
    def _is_url(cls, secret: SecretStr) -> SecretStr:
        """Refuse what cannot be taken apart here, where the refusal does not repeat it: it has a password."""
        url = secret.get_secret_value()
        try:
            whole = "://" in url and (urlsplit(url).port or True)
        except ValueError:  # of a port that is no number, or of a password with an unescaped / or @
            whole = False
        if not whole:
            raise ValueError(_UNESCAPED)
        return secret

    @field_validator("broker_url", "database_url")
    @classmethod
    def _has_its_host(cls, secret: SecretStr | None) -> SecretStr | None:
        """Refuse a password whose unescaped / ends the host's part too early: some other name would be looked up."""
        if (
            secret is not None
            and "@" in secret.get_secret_value().partition("://")[2].partition("?")[0].partition("/")[2]
        ):
            raise ValueError(_UNESCAPED)
        return secret

    @field_validator("broker_url", "database_url")
    @classmethod
    def _has_its_password(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        """Put the password that is told apart into the URL, unless it has one."""
        password = info.data.get(f"{str(info.field_name).removesuffix('_url')}_password")
        if secret is None or password is None:
            return secret
        scheme, _, rest = secret.get_secret_value().partition("://")
        user, at, where = rest.partition("@")
        if not at or ":" in user:
            return secret
        return SecretStr(f"{scheme}://{user}:{quote(password.get_secret_value(), safe='')}@{where}")

    @field_validator("trusted_proxies")
    @classmethod
    def _are_proxies(cls, proxies: str) -> str:
        """Refuse what uvicorn would take for a name, which no client has, and what would trust everybody."""
        for proxy in map(str.strip, proxies.split(",")) if proxies else ():
            try:
                everybody = proxy == "*" or ip_network(proxy).prefixlen == 0
            except ValueError:
                raise ValueError(
                    f"must be addresses or networks, such as 10.0.0.0/8, and {proxy!r} is neither"
                ) from None
            if everybody:
                raise ValueError(f"must not be everybody ({proxy}), who could then say any address")
        return proxies


def read_settings(secrets: Path = SECRETS) -> Settings:
    """The settings of this process. Raises StartError with the first variable, or file, that is wrong."""
    try:
        return Settings(_secrets_dir=secrets if secrets.is_dir() else None)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        name = "_".join(str(part) for part in problem["loc"]).upper()
        raise StartError(f"{name}: {problem['msg'].removeprefix('Value error, ')}.") from None
    except SettingsError as error:  # names the setting; its cause may repeat what is in the file
        raise StartError(f"A file in {secrets} cannot be read: {error}.") from None
