"""What goes wrong with what a room stands on, for real, and what the doctor says of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import asyncpg
import pytest
from pydantic import SecretStr
from yarl import URL

from m3 import topology
from m3.bus import Bus, open_bus
from m3.errors import StartError
from m3.room import examine, migrate_database
from m3.sealing import Masters
from m3.settings import Settings
from m3.store import Store, migrate, open_store
from m3.topology import AGENT_USER, DEAD, RECORDER
from services.doctor import Report
from services.doctor.findings import Finding
from tests.support.broker import PrivateNode
from tests.support.database import Database, private_database
from tests.support.issuing import outside_issuer
from tests.support.ports import free_ports
from tests.support.proxy import proxy
from tests.support.pushing import running_pusher
from tests.support.scripted_model import Behaviour, Script, answers, keeps_silent, says, scripted_model
from tests.support.until import until

AWAY = "127.0.0.1:1"
SECRET = "hush"  # in every password here, and in no report


async def look(*, hold: float = 0, **settings: Any) -> Report:
    """The report on a room with these settings, which tells no secret."""
    report = await examine(Settings.model_validate(settings), edge_url=None, hold=hold)
    assert SECRET not in report.json()
    return report


def of(report: Report, check: str) -> Finding:
    (found,) = [finding for finding in report.findings if finding.check == check]
    return found


def marks(report: Report) -> dict[str, str]:
    return {finding.check: finding.mark for finding in report.findings}


# ---- The broker


async def test_a_broker_that_is_away_hides_nothing_else(database_url: str) -> None:
    report = await look(
        broker_url=f"amqp://user:{SECRET}@{AWAY}/", database_url=database_url, llm_base_url=f"http://{AWAY}/v1"
    )
    assert not report.well
    assert of(report, "broker").found == f"amqp://user@{AWAY}/: Nobody listens there"
    assert "Start RabbitMQ" in of(report, "broker").advice
    assert of(report, "queues").mark == "skipped"
    assert of(report, "database").mark == "ok"
    assert of(report, "model").mark == "wrong"


async def test_a_broker_whose_host_nobody_knows_is_told_so() -> None:
    found = of(await look(broker_url="amqp://nowhere.invalid/"), "broker")
    assert found.found == "amqp://nowhere.invalid/: The name of its host is not known"
    assert "the name of the other service" in found.advice


async def test_a_wrong_password_and_a_wrong_virtual_host_are_told_apart(node: PrivateNode) -> None:
    found = of(await look(broker_url=f"amqp://guest:{SECRET}@127.0.0.1:{node.port}/"), "broker")
    assert "It refuses the user or the password" in found.found
    assert "%2F and %40" in found.advice
    found = of(await look(broker_url=f"{node.url}nowhere"), "broker")
    assert "It takes the password, and refuses the virtual host" in found.found
    assert "add_vhost" in found.advice


async def test_a_broker_that_speaks_no_tls_is_told_so(node: PrivateNode) -> None:
    found = of(await look(broker_url=node.url.replace("amqp:", "amqps:")), "broker")
    assert "TLS failed" in found.found
    assert "5671" in found.advice


async def test_a_broker_that_is_short_of_memory_takes_no_messages_and_the_rest_is_told(node: PrivateNode) -> None:
    await made(node.url)
    node.ctl("set_vm_memory_high_watermark", "0.0000001")
    try:
        report = await look(broker_url=node.url)
        assert of(report, "messages").mark == "wrong"
        assert "short of memory or disk" in of(report, "messages").found
        assert of(report, "exchanges").mark == "ok"
        assert "0 consumers" in of(report, "queue recorder").found
    finally:
        node.ctl("set_vm_memory_high_watermark", "0.4")
    await until(lambda: _takes_messages(node.url))


async def _takes_messages(url: str) -> bool:
    return of(await look(broker_url=url), "messages").mark == "ok"


async def test_a_user_without_rights_is_told_which_it_needs(node: PrivateNode) -> None:
    await made(node.url)
    node.ctl("add_user", "poor", SECRET)
    node.ctl("set_permissions", "poor", "^look", ".*", ".*")
    report = await look(broker_url=f"amqp://poor:{SECRET}@127.0.0.1:{node.port}/")
    assert of(report, "messages").mark == "ok"
    assert "ACCESS_REFUSED" in of(report, "queue recorder").found
    assert "set_permissions" in of(report, "queue recorder").advice


async def test_a_broker_that_falls_silent_is_given_up_in_time(broker_url: str) -> None:
    async with proxy(URL(broker_url).port or 5672) as line:
        line.swallow(swallowing=True)
        found = of(await look(broker_url=f"amqp://guest:guest@127.0.0.1:{line.port}/"), "broker")
    assert "It does not answer" in found.found


async def test_queues_that_are_not_there_are_not_made_by_looking(broker_url: str) -> None:
    for _ in range(2):
        report = await look(broker_url=broker_url)
        assert (of(report, "broker").mark, of(report, "messages").mark) == ("ok", "ok")
        for name in ("exchange chat.in", "queue recorder", "queue agent.user", "queue agent.api", "queue dead"):
            assert of(report, name).found == "it is not there"
            assert "Start any process" in of(report, name).advice


async def test_a_queue_without_a_consumer_is_wrong_and_one_with_some_is_not(broker_url: str) -> None:
    async with open_bus(broker_url) as bus, bus.consume(RECORDER, prefetch=1):
        await until(lambda: bus.connected)
        await bus.publish(topology.announced("user", "thread"), b"{}")
        report = await look(broker_url=broker_url)
    assert of(report, "exchanges").found == "all 4 are there"
    assert of(report, "queue recorder").found == "0 messages waiting, 1 consumer"
    assert of(report, "queue agent.user").found == "1 message waiting, 0 consumers: nobody answers people"
    assert "m3 agent" in of(report, "queue agent.user").advice
    assert of(report, "queue dead").mark == "ok"
    assert not report.well


async def test_a_queue_that_nobody_records_from_is_told_as_that(broker_url: str) -> None:
    await made(broker_url)
    found = of(await look(broker_url=broker_url), "queue recorder")
    assert (found.mark, "messages are not recorded" in found.found) == ("wrong", True)


async def test_dead_letters_are_a_warning_that_says_where_to_look(broker_url: str) -> None:
    async with open_bus(broker_url) as bus:
        await until(lambda: bus.connected)
        await bus.publish(topology.Route("chat.dead", "", must_arrive=True), b"{}")
        found = of(await look(broker_url=broker_url), f"queue {DEAD.name}")
    assert (found.mark, found.found) == ("warning", "1 message put aside that could not be read or stored")
    assert "m3-reason" in found.advice


async def test_what_is_declared_otherwise_is_told_with_what_differs(broker_url: str) -> None:
    async with await aio_pika.connect(broker_url) as connection, connection.channel() as channel:
        await channel.declare_queue(AGENT_USER.name, durable=True, arguments={"x-max-length": 5})
        await channel.declare_exchange("chat.out", aio_pika.ExchangeType.FANOUT, durable=True)
    report = await look(broker_url=broker_url)
    assert "inequivalent arg 'x-" in of(report, "queue agent.user").found
    assert "delete it" in of(report, "queue agent.user").advice
    assert "inequivalent arg 'type'" in of(report, "exchange chat.out").found


async def made(broker_url: str) -> None:
    """Have a process make the queues."""
    async with open_bus(broker_url) as bus:
        await until(lambda: bus.connected)


# ---- The database


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    async with private_database() as database:
        yield database


async def test_a_database_that_is_away_or_not_there_is_told_so(database_url: str) -> None:
    found = of(await look(database_url=f"postgresql://u:{SECRET}@{AWAY}/room"), "database")
    assert found.found == f"postgresql://u@{AWAY}/room: Nobody listens there"
    assert "Start PostgreSQL" in found.advice
    name = database_url.rpartition("?")[0].rpartition("/")[2]
    found = of(await look(database_url=database_url.replace(f"/{name}?", "/nowhere?")), "database")
    assert 'database "nowhere" does not exist' in found.found
    assert "CREATE DATABASE" in found.advice


async def test_what_is_no_database_url_is_told_without_a_piece_of_it() -> None:
    for url in ("mysql://x/y", f"postgresql://u:{SECRET}@h:{SECRET}/d"):
        found = of(await look(database_url=url), "database")
        assert "not a PostgreSQL URL" in found.found


async def test_a_wrong_password_a_full_server_and_a_silent_one_are_told_apart(database: Database) -> None:
    session = await asyncpg.connect(database.url)
    await session.execute(f"ALTER USER postgres PASSWORD '{SECRET}'")
    hba = database._folder / "pg_hba.conf"
    hba.write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    await session.execute("SELECT pg_reload_conf()")
    url = database.url.replace("postgres@", f"postgres:{SECRET}-wrong@")
    await until(lambda: _says(url, "password authentication failed"))
    assert "pg_hba" in of(await look(database_url=url), "database").advice

    url = database.url.replace("postgres@", f"postgres:{SECRET}@")
    await session.execute("CREATE ROLE plain LOGIN PASSWORD 'hush'")
    await session.execute("ALTER ROLE plain CONNECTION LIMIT 0")
    plain = database.url.replace("postgres@", f"plain:{SECRET}@")
    found = of(await look(database_url=plain), "database")
    assert "too many connections" in found.found
    assert "max_connections" in found.advice

    session.terminate()
    database.freeze(frozen=True)
    found = of(await look(database_url=url), "database")
    assert "It does not answer" in found.found


async def _says(url: str, what: str) -> bool:
    return what in of(await look(database_url=url), "database").found


async def test_a_database_that_is_read_only_is_wrong(postgres: str, database_url: str) -> None:
    await _alter(postgres, database_url, "SET default_transaction_read_only = on")
    report = await look(database_url=database_url)
    assert "read-only" in of(report, "database").found
    assert "primary" in of(report, "database").advice


async def _alter(postgres: str, database_url: str, change: str) -> None:
    session = await asyncpg.connect(postgres)
    name = database_url.rpartition("?")[0].rpartition("/")[2]
    await session.execute(f"ALTER DATABASE {name} {change}")
    await session.close()


async def test_tables_that_are_missing_are_made_by_migrating(empty_database_url: str) -> None:
    found = of(await look(database_url=empty_database_url), "migrations")
    assert (found.mark, "0001" in found.found, "m3 migrate" in found.advice) == ("wrong", True, True)
    settings = Settings.model_validate({"database_url": empty_database_url})
    assert "0001" in await migrate_database(settings)
    assert await migrate_database(settings) == "The database is up to date."
    report = await look(database_url=empty_database_url)
    assert marks(report).items() >= {
        "database": "ok", "migrations": "ok", "connections": "ok", "sessions": "ok", "clock": "ok",
    }.items()  # fmt: skip


async def test_migrating_gives_a_database_up_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3.room.MIGRATE_PATIENCE", 0)
    with pytest.raises(StartError, match="does not answer"):
        await migrate_database(Settings.model_validate({"database_url": f"postgresql://{AWAY}/room"}))


async def test_migrating_needs_a_database_to_be_named() -> None:
    with pytest.raises(StartError, match="DATABASE_URL"):
        await migrate_database(Settings())


async def test_a_migration_that_was_changed_is_wrong_and_a_newer_one_a_warning(database_url: str) -> None:
    session = await asyncpg.connect(database_url)
    await session.execute("INSERT INTO schema_migrations (version, checksum) VALUES ('9999', 'newer')")
    assert of(await look(database_url=database_url), "migrations").mark == "warning"
    await session.execute("UPDATE schema_migrations SET checksum = 'changed' WHERE version = '0001'")
    assert of(await look(database_url=database_url), "migrations").mark == "wrong"
    await session.close()


async def test_a_user_who_may_not_make_tables_is_told_so(database: Database) -> None:
    session = await asyncpg.connect(database.url)
    await session.execute("CREATE ROLE plain LOGIN")
    plain = database.url.replace("postgres@", "plain@")
    assert "GRANT CREATE ON SCHEMA public" in of(await look(database_url=plain), "migrations").advice
    await migrate(database.url)
    await session.execute("GRANT SELECT ON schema_migrations TO plain")
    assert "may not write the tables" in of(await look(database_url=plain), "migrations").found
    await session.close()


# ---- The model


def server(models: Behaviour, *replies: Behaviour) -> Script:
    """A model's server: who asks for its models sends no body."""
    left = list(replies)
    return lambda body: (left.pop(0) if len(left) > 1 else left[0]) if body else models


HAS_DEMO = answers('{"object": "list", "data": [{"id": "demo"}, {"id": "other"}]}')


async def test_a_room_without_a_model_is_a_warning() -> None:
    found = of(await look(), "model")
    assert (found.mark, "LLM_BASE_URL" in found.advice) == ("warning", True)


async def test_a_model_that_is_listed_and_says_a_word_is_ok_and_no_more_is_heard_of_it() -> None:
    async with scripted_model(server(HAS_DEMO, says("one two three four five"))) as model:
        report = await look(llm_base_url=model.url)
        assert (of(report, "model").mark, of(report, "reply").mark) == ("ok", "ok")
        assert of(report, "model").found == f"demo is at {model.url}"


async def test_a_server_that_lists_no_models_is_no_error() -> None:
    for status in (404, 405, 501):
        async with scripted_model(server(answers("{}", status), says("hello"))) as model:
            report = await look(llm_base_url=model.url)
            assert (of(report, "model").mark, of(report, "reply").mark) == ("ok", "ok")


async def test_a_model_that_the_server_does_not_know_is_told_with_those_that_it_does() -> None:
    async with scripted_model(server(HAS_DEMO, answers("{}", 404))) as model:
        report = await look(llm_base_url=model.url, llm_model="mine")
    assert of(report, "model").found == f"{model.url} does not list mine, but demo, other"
    assert "does not know the model" in of(report, "reply").found
    assert "LLM_MODEL" in of(report, "reply").advice


async def test_a_key_that_is_refused_is_told_and_not_shown() -> None:
    async with scripted_model(server(answers("{}", 401), answers("{}", 401))) as model:
        report = await look(llm_base_url=model.url, llm_api_key=f"sk-{SECRET}")
    for check in ("model", "reply"):
        assert "401: it refuses the key" in of(report, check).found
        assert "LLM_API_KEY" in of(report, check).advice


async def test_a_model_that_says_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.doctor.model.WORD_TIMEOUT", 0.2)
    async with scripted_model(server(HAS_DEMO, keeps_silent())) as model:
        found = of(await look(llm_base_url=model.url), "reply")
    assert found.found == "demo said nothing within 0.2 s"


async def test_a_server_that_is_away_is_asked_for_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await look(llm_base_url=f"http://u:{SECRET}@{AWAY}/v1")
    assert "cannot be reached" in of(report, "model").found
    assert of(report, "reply").mark == "skipped"
    assert "LLM_BASE_URL must be" in of(await look(llm_base_url="nowhere"), "model").found


async def test_a_server_that_cannot_count_tokens_is_asked_again_without() -> None:
    refusal = answers('{"error": {"message": "stream_options is unknown"}}', 400)
    async with scripted_model(server(HAS_DEMO, refusal, says("hello"))) as model:
        assert of(await look(llm_base_url=model.url), "reply").mark == "ok"


async def test_a_check_that_does_not_end_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.doctor.examination.DEADLINE", 3)
    async with scripted_model(server(HAS_DEMO, keeps_silent())) as model:
        report = await look(llm_base_url=model.url, database_url=f"postgresql://{AWAY}/room")
    assert of(report, "model").found == "nothing was found out within 3 s"
    assert "Nobody listens" in of(report, "database").found


# ---- The edge


async def test_nobody_at_the_edge_is_one_finding() -> None:
    (port,) = free_ports(1)
    report = await look(port=port)
    assert of(report, "edge").found == f"http://127.0.0.1:{port}: Nobody listens there"
    assert "m3 up" in of(report, "edge").advice
    assert of(report, "socket").mark == "skipped"


async def test_an_edge_that_is_not_told_is_skipped() -> None:
    report = await look(broker_url=f"amqp://{AWAY}/")
    assert (of(report, "edge").mark, "EDGE_URL" in of(report, "edge").advice) == ("skipped", True)


async def test_a_socket_at_the_edge_is_opened_and_answers_and_nothing_is_said(memory_bus: Bus, store: Store) -> None:
    async with running_pusher(memory_bus, store) as (address, _):
        report = await look(edge_url=address)
        assert (of(report, "edge").mark, of(report, "socket").mark) == ("ok", "ok")
    assert await store.head("m3:doctor") == 0
    assert await store.waiting_threads(0) == []


async def test_a_gateway_that_is_not_ready_is_wrong_and_says_what_it_misses(store: Store) -> None:
    async with open_bus(f"amqp://{AWAY}/") as bus, running_pusher(bus, store) as (address, _):
        report = await look(edge_url=address)
    assert of(report, "edge").found == f"the gateway behind {address} is not ready (Missing: broker.)"


async def test_a_proxy_that_does_not_pass_the_upgrade_on_is_found(memory_bus: Bus, store: Store) -> None:
    async with running_pusher(memory_bus, store) as (address, _), without_upgrade(address) as edge:
        report = await look(edge_url=edge)
    assert of(report, "edge").mark == "ok"
    assert of(report, "socket").found == "it is not opened: status 404 (Not Found)"
    assert "Upgrade" in of(report, "socket").advice


async def test_a_proxy_that_cuts_off_what_is_silent_is_found(memory_bus: Bus, store: Store) -> None:
    async with running_pusher(memory_bus, store) as (address, _), proxy(URL(address).port or 80) as line:

        async def cut_off() -> None:
            await until(lambda: b'"connected"' in line.passed)
            line.cut()

        cutting = asyncio.create_task(cut_off(), name="cut off")
        found = of(await look(edge_url=f"http://127.0.0.1:{line.port}", hold=30), "socket")
        await cutting
    assert "cut off after" in found.found
    assert "proxy_read_timeout" in found.advice


async def test_what_the_pusher_says_when_it_closes_is_told(memory_bus: Bus, store: Store) -> None:
    async with running_pusher(memory_bus, store, sockets_per_address=0) as (address, _):
        found = of(await look(edge_url=address), "socket")
    assert found.found == "the pusher closes it: Your address has as many sockets as it may have (4003)"


async def test_another_server_at_the_edge_is_not_taken_for_the_room() -> None:
    async with scripted_model(lambda _: answers("<p>Hello", content_type="text/html")) as page:
        edge = page.url.removesuffix("/v1")
        report = await look(edge_url=edge)
        assert of(report, "edge").found == f"{edge} is not the room (GET /healthz: status 200)"
        assert of(report, "socket").found == "it is not opened: status 200"
    async with scripted_model(lambda _: answers("", 308, headers={"Location": "https://room/healthz"})) as elsewhere:
        report = await look(edge_url=elsewhere.url.removesuffix("/v1"))
        assert "https://room instead" in of(report, "edge").advice
    async with scripted_model(lambda _: answers("", 502)) as empty:
        report = await look(edge_url=empty.url.removesuffix("/v1"))
        assert "no gateway behind it" in of(report, "edge").found
        assert "status 502" in of(report, "socket").found


# ---- Who may come in


async def test_a_socket_that_asks_who_comes_is_well_and_is_told_as_that() -> None:
    refusal = answers('{"code": "not_signed_in", "message": "Sign in first."}', 401)
    async with scripted_model(lambda body: refusal) as asking:
        found = of(await look(edge_url=asking.url.removesuffix("/v1"), host="0.0.0.0"), "socket")
        differs = of(await look(edge_url=asking.url.removesuffix("/v1")), "socket")
    assert (found.mark, "asks who comes" in found.found) == ("ok", True)
    assert (differs.mark, "though AUTH is open" in differs.found) == ("warning", True)


async def test_a_socket_that_opens_for_whoever_comes_is_wrong_where_accounts_are_required(
    memory_bus: Bus, store: Store
) -> None:
    async with running_pusher(memory_bus, store) as (address, _):
        found = of(await look(edge_url=address, auth="required"), "socket")
    assert found.found == "it opens for whoever comes, though AUTH is required"


async def test_a_room_that_nobody_can_let_others_into_is_a_warning_until_an_operator_came(database_url: str) -> None:
    session = await asyncpg.connect(database_url)
    settings: dict[str, Any] = {"database_url": database_url, "host": "0.0.0.0"}
    assert "operators" not in marks(await look(database_url=database_url))
    report = await look(**settings)
    assert "nobody can let others in" in of(report, "operators").found
    assert of(report, "tenants").mark == "ok"
    await session.execute(
        "INSERT INTO accounts (account_id, tenant, name, operator, one_time) "
        "VALUES (gen_random_uuid(), 'default', 'admin', true, true)"
    )
    assert "never signed in" in of(await look(**settings), "operators").found
    await session.execute("UPDATE accounts SET one_time = false")
    assert of(await look(**settings), "operators").mark == "ok"
    await session.close()


async def test_an_issuer_is_asked_for_its_keys() -> None:
    async with outside_issuer() as outside:
        settings: dict[str, Any] = {"oidc_issuer": outside.url, "oidc_audience": "room", "host": "0.0.0.0"}
        assert of(await look(**settings), "issuer").found == f"{outside.url} vouches for people, with 1 key"
        outside.keys = {}
        assert "no key" in of(await look(**settings), "issuer").found
        outside.configuration = {"issuer": "https://somebody.example.com"}
        assert "calls itself otherwise" in of(await look(**settings), "issuer").found
        outside.configuration = {"jwks_uri": 5}
        assert "jwks_uri: Input should be a valid string" in of(await look(**settings), "issuer").found
        outside.away = True
        assert "status 500" in of(await look(**settings), "issuer").found
    assert "cannot be asked" in of(await look(**settings), "issuer").found
    assert "OIDC_AUDIENCE" in of(await look(oidc_issuer=f"http://{AWAY}", host="0.0.0.0"), "issuer").found


@asynccontextmanager
async def without_upgrade(address: str) -> AsyncIterator[str]:
    """A proxy that takes the hop's own headers off, as each does that was told nothing of WebSockets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        kept = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"upgrade:", b"connection:"))]
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", URL(address).port)
        onward_writer.write(b"\r\n".join([kept[0], b"Connection: close", *kept[1:]]))
        writer.write(await onward_reader.read())
        for each in (writer, onward_writer):
            each.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


# ---- What is sealed


async def test_a_room_that_lacks_a_key_by_which_messages_were_sealed_is_wrong(store: Store, database_url: str) -> None:
    assert "content" not in marks(await look(database_url=database_url))
    keys = f"first:{'1' * 64}"
    async with open_store(database_url, pool_size=1, masters=Masters.of(Settings(content_keys=SecretStr(keys)))) as one:
        await one.content.keys({"t"}, make=True)
    assert of(await look(database_url=database_url, content_keys=keys), "content").mark == "ok"
    for wrong in (None, f"second:{'1' * 64}", f"first:{'2' * 64}", "first:123"):
        found = of(await look(database_url=database_url, content_keys=wrong), "content")
        assert (found.mark, "CONTENT_KEYS" in found.found, bool(found.advice)) == ("wrong", True, True)
        assert "222" not in found.found + found.advice
