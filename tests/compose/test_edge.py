"""The edge by itself: what it says while nobody is behind it, and what it tells whoever is."""

import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.compose.engine import Engine, run
from tests.compose.images import images
from tests.support.packages import Say
from tests.support.ports import free_ports
from tests.support.until import until_blocking

ROOT = Path(__file__).parents[2]
NGINX = "nginx:1.28"

pytestmark = pytest.mark.timeout(900)  # where the image is made first

Edge = Callable[..., tuple[int, int]]

#: Stands where gateways and pushers do, and says what it was told.
ECHO = """
events {}
http {
    server {
        listen 8888;
        default_type application/json;
        return 200 '{"host": "$http_host", "client": "$http_x_forwarded_for", "scheme": "$http_x_forwarded_proto",
                     "upgrade": "$http_upgrade", "connection": "$http_connection"}';
    }
}
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for localhost, named as the secrets are."""
    folder = tmp_path_factory.mktemp("certificate")
    folder.chmod(0o755)  # nginx is another user
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(folder / "tls_key"), "-out", str(folder / "tls_certificate")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    (folder / "tls_key").chmod(0o444)
    return folder


@pytest.fixture
def edge(engine: Engine, say: Say, certificate: Path) -> Iterator[Edge]:
    """Starts the edge with the servers of a folder of ``deploy/nginx``, before an ``echo`` or nobody; returns its ports of
    HTTP and TLS."""
    images(engine, [NGINX], say)
    http, tls = free_ports(2)
    name = named(http)
    started = [name]

    def start(servers: str, echo: Path | None = None) -> tuple[int, int]:
        mounts = {
            ROOT / "deploy/nginx/nginx.conf": "/etc/nginx/nginx.conf",
            ROOT / "deploy/nginx/room.conf": "/etc/nginx/room.conf",
            ROOT / "deploy/nginx" / servers: "/etc/nginx/servers",
            certificate: "/run/secrets",
        }
        alone = ["--user", "101:101", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]
        alone += [word for here, there in mounts.items() for word in ("-v", f"{here}:{there}:ro")]
        engine.docker("network", "create", name)  # in which names can be asked for
        if echo:
            known = ("--network", name, "--network-alias", "gateway", "--network-alias", "pusher")
            behind = engine.docker("run", "--detach", *known, "-v", f"{echo}:/etc/nginx/nginx.conf:ro", NGINX)
            started.append(behind)
        engine.docker("run", "--rm", *alone, "--network", name, NGINX, "nginx", "-t", "-q")
        published = ["-p", f"127.0.0.1:{http}:8888", "-p", f"127.0.0.1:{tls}:8443"]
        engine.docker("run", "--detach", "--name", name, *alone, "--network", name, *published, NGINX)
        until_blocking(lambda: listens(http))
        return http, tls

    yield start
    engine.docker("rm", "--force", *started)
    engine.docker("network", "rm", name)


def named(port: int) -> str:
    """The container whose port it is."""
    return f"m3-edge-{port}"


def listens(port: int) -> bool:
    """Whether something answers, and not the engine alone, which takes connections for its containers."""
    try:
        httpx2.get(f"http://127.0.0.1:{port}/metrics")
    except httpx2.HTTPError:
        return False
    return True


@contextmanager
def client(port: int) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
        yield http


def test_a_room_that_cannot_be_reached_is_told_in_the_rooms_own_words(edge: Edge) -> None:
    port, _ = edge("plain")
    with client(port) as http:
        posted = http.post("/api/chat", json={"message": "anyone?"})
        assert (posted.status_code, posted.json()["code"]) == (503, "not_recorded")  # nobody can say
        assert posted.headers["Retry-After"].isdigit()
        asked = http.get("/api/threads/default/history")
        assert (asked.status_code, asked.json()["code"]) == (503, "unavailable")
        assert asked.headers["Content-Type"] == "application/json"
        assert asked.headers["X-Content-Type-Options"] == "nosniff"
        assert http.get("/ws/chat/default", headers={"Upgrade": "websocket"}).status_code == 503


def test_no_log_has_a_ticket_or_what_somebody_signs_in_with(edge: Edge, engine: Engine) -> None:
    """Neither of what went well nor of what went wrong, as where no pusher is there."""
    port, _ = edge("plain")
    with client(port) as http:
        shown = {"Authorization": "Bearer hush-token", "Upgrade": "websocket", "Connection": "upgrade"}
        assert http.get("/ws/chat/default?ticket=hush-ticket", headers=shown).status_code == 503
        assert http.get("/api/threads/default/history", headers=shown).status_code == 503

    def logged() -> str:
        return run("sh", "-c", f"docker logs {named(port)} 2>&1", environment=engine.environment, within=60)

    until_blocking(lambda: "/ws/chat/default" in logged() and "/api/threads/default/history" in logged())
    assert "could not be resolved" in logged()
    assert "hush" not in logged()


def test_metrics_are_not_for_the_outside(edge: Edge) -> None:
    port, _ = edge("plain")
    with client(port) as http:
        assert http.get("/metrics").status_code == 404


def test_a_body_beyond_that_of_a_batch_is_refused_at_the_door(edge: Edge) -> None:
    port, _ = edge("plain")
    with client(port) as http:
        refused = http.post("/api/threads/t/messages", content=b"x" * (1024 * 1024 + 1))
        assert (refused.status_code, refused.json()["code"]) == (413, "body_too_long")


def test_a_service_is_told_the_host_that_the_client_asked_and_the_address_that_it_has(
    edge: Edge, tmp_path: Path
) -> None:
    """Whatever the client says of its own address: pages open sockets only where they came from, and limits count by it."""
    (tmp_path / "nginx.conf").write_text(ECHO)
    port, _ = edge("plain", tmp_path / "nginx.conf")
    with client(port) as http:
        for path, asked in (("/api/chat", {}), ("/ws/chat/default", {"Upgrade": "websocket", "Connection": "upgrade"})):
            claimed = {"Host": "room.example.com:8888", "X-Forwarded-For": "203.0.113.9"}
            told = http.get(path, headers=asked | claimed).json()
            assert told.pop("client") not in {"", "203.0.113.9"}
            assert told == {
                "host": "room.example.com:8888",
                "scheme": "http",
                "upgrade": asked.get("Upgrade", ""),
                "connection": asked.get("Connection", ""),
            }


def test_with_a_certificate_plain_http_only_sends_there(edge: Edge, certificate: Path) -> None:
    port, secure = edge("tls")
    with client(port) as http:
        sent = http.get("/api/threads/default/history?limit=1")
        assert sent.status_code == 308
        assert sent.headers["Location"].endswith("/api/threads/default/history?limit=1")
    trusted = ssl.create_default_context(cafile=str(certificate / "tls_certificate"))
    with httpx2.Client(verify=trusted, timeout=10) as https:
        answer = https.get(f"https://localhost:{secure}/api/threads/default/history")
        assert answer.json()["code"] == "unavailable"
        assert "max-age" in https.get(f"https://localhost:{secure}/metrics").headers["Strict-Transport-Security"]
