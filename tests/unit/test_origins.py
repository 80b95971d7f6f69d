"""Which pages are the room's own, and which it is told to answer beside them."""

import pytest
from starlette.requests import HTTPConnection

from m3.errors import StartError
from m3.web.origins import ALLOWED, is_foreign, names_this_machine, parse_origins

HOST = "room.example.com:8888"


def connection(*origins: str, host: str = HOST, allowed: str = "") -> HTTPConnection:
    headers = [(b"host", host.encode("latin-1")), *((b"origin", origin.encode("latin-1")) for origin in origins)]
    return HTTPConnection(
        {"type": "http", "scheme": "http", "path": "/", "headers": headers, ALLOWED: parse_origins(allowed)}
    )


@pytest.mark.parametrize(
    ("written", "origin"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://App.Example.COM", "https://app.example.com"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("http://app.example.com:80", "http://app.example.com"),
        ("http://app.example.com:443", "http://app.example.com:443"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("http://[::1]:5173", "http://[::1]:5173"),
        ("http://[0:0:0:0:0:0:0:1]:80", "http://[::1]"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
    ],
)
def test_an_origin_is_known_as_browsers_write_it(written: str, origin: str) -> None:
    assert parse_origins(written) == {origin}


def test_there_may_be_several_or_none() -> None:
    assert parse_origins("https://a.example, https://b.example") == {"https://a.example", "https://b.example"}
    assert parse_origins("") == parse_origins("  ") == frozenset()


@pytest.mark.parametrize(
    "wrong",
    [
        "*",
        "null",
        "app.example.com",
        "//app.example.com",
        "https://",
        "https://*.example.com",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://app.example.com?query",
        "https://app.example.com#part",
        "https://anna@app.example.com",
        "https://anna:secret@app.example.com",
        "https://app.example.com:",
        "https://app.example.com:0",
        "https://app.example.com:65536",
        "https://app.example.com:port",
        "ws://app.example.com",
        "file:///etc/passwd",
        "https://[::1",
        "https://[::g]",
        "https://[1:2:3]",
        "https://bücher.example",
        "https://a.example https://b.example",
        "https://a.example,,https://b.example",
        "https://a.example,",
    ],
)
def test_what_is_no_origin_is_said_at_the_start(wrong: str) -> None:
    with pytest.raises(StartError, match=r"^ORIGINS: "):
        parse_origins(wrong)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (f"http://{HOST}", HOST),
        (f"https://{HOST}", HOST),  # as behind a proxy that speaks TLS
        (f"http://{HOST}", HOST.upper()),
        (f"http://{HOST}".upper(), HOST),
        ("http://room.example.com", "room.example.com"),
        ("https://room.example.com", "room.example.com"),
        ("http://room.example.com", "room.example.com:80"),
        ("https://room.example.com", "room.example.com:443"),
        ("https://room.example.com:443", "room.example.com"),
        ("http://127.0.0.1:8888", "127.0.0.1:8888"),
        ("http://[::1]:8888", "[::1]:8888"),
        ("http://[::1]", "[::1]"),
    ],
)
def test_a_page_of_the_very_host_and_port_that_it_asks_is_the_rooms_own(origin: str, host: str) -> None:
    assert not is_foreign(connection(origin, host=host))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:3000", "localhost:8888"),
        ("http://127.0.0.1:8888", "localhost:8888"),
        ("http://room.example.com", HOST),
        ("https://room.example.com", HOST),
        ("http://room.example.com:443", "room.example.com"),
        ("https://room.example.com:80", "room.example.com"),
        ("http://room.example.com", "room.example.com:443"),
        ("https://room.example.com:8443", "room.example.com"),
        ("http://[::1]:3000", "[::1]:8888"),
        ("http://[::2]:8888", "[::1]:8888"),
        ("ws://room.example.com:8888", HOST),
        ("capacitor://room.example.com:8888", HOST),
    ],
)
def test_a_page_of_another_port_is_not_unless_it_was_named(origin: str, host: str) -> None:
    assert is_foreign(connection(origin, host=host))
    if origin.startswith("http"):
        assert not is_foreign(connection(origin, host=host, allowed=origin))


def test_whoever_is_no_page_says_no_origin() -> None:
    assert not is_foreign(connection())


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://evil.example",
        "https://room.example.com.evil.example",
        "https://evil-room.example.com",
        "https://evilroom.example.com",
        "https://example.com",
        "https://www.room.example.com",
        "https://room.example.com.",
        "https://room.example.com@evil.example",
        "https://evil.example@room.example.com",
        "https://room.example.com:secret@evil.example",
        "https://evil.example\\@room.example.com",
        "https://evil.example#room.example.com",
        "https://evil.example/room.example.com",
        "https://evil.example?room.example.com",
        "https://room.example.com/",
        "https://room.example.com:65536666",
        "room.example.com",
        "https://[::1",
        "https://\xe9.example",
    ],
)
def test_any_other_page_is_foreign(origin: str) -> None:
    assert is_foreign(connection(origin))
    assert is_foreign(connection(origin, allowed="https://app.example.com"))


@pytest.mark.parametrize(
    "host", ["", "[::1", "null", "room.example.com:", "room.example.com:port", "a@room.example.com"]
)
def test_no_page_is_of_a_host_that_is_none(host: str) -> None:
    for origin in ("null", "http://", "http://room.example.com"):
        assert is_foreign(connection(origin, host=host))


def test_two_origins_are_none() -> None:
    assert is_foreign(connection(f"http://{HOST}", f"http://{HOST}"))


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("https://APP.example.com:443", "https://app.example.com"),
        ("http://app.example.com:8080", "http://app.example.com:8080"),
        ("http://[0::1]:5173", "http://[::1]:5173"),
        ("https://a.example,https://b.example", "https://b.example"),
    ],
)
def test_an_origin_that_was_named_is_not_foreign(allowed: str, origin: str) -> None:
    assert is_foreign(connection(origin))
    assert not is_foreign(connection(origin, allowed=allowed))


@pytest.mark.parametrize(
    "origin",
    [
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.",
        "https://app.example.com.evil.example",
        "https://evil-app.example.com",
        "https://sub.app.example.com",
        "https://app.example.com@evil.example",
        "null",
        "*",
    ],
)
def test_an_origin_is_named_by_scheme_host_and_port_or_not_at_all(origin: str) -> None:
    assert is_foreign(connection(origin, allowed="https://app.example.com"))


def asked_of(*hosts: str) -> dict[str, object]:
    return {"headers": [(b"host", host.encode("latin-1")) for host in hosts]}


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8888", "LocalHost:8888", "127.0.0.1", "127.0.0.1:80", "127.255.0.7:8888", "[::1]:8888"],
)
def test_the_machine_itself_has_these_names(host: str) -> None:
    assert names_this_machine(asked_of(host))


def test_who_names_no_host_is_no_page() -> None:
    assert names_this_machine(asked_of())


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8888",
        "localhost.evil.example",
        "evil.localhost.example",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io:8888",
        "127.evil.example",
        "evil.example@localhost",
        "localhost:8888:evil.example",
        "localhost evil.example",
        "192.168.0.7:8888",
        "0.0.0.0:8888",
        "[::2]",
        "[::ffff:127.0.0.1]",
        "localhost\n",
    ],
)
def test_no_other_name_means_the_machine_itself_to_everybody(host: str) -> None:
    assert not names_this_machine(asked_of(host))
    assert not names_this_machine(asked_of("localhost", host))
