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


@pytest.mark.parametrize("origin", [f"http://{HOST}", "http://room.example.com:3000", "https://room.example.com"])
def test_a_page_of_the_same_host_is_the_rooms_own_whatever_its_port(origin: str) -> None:
    assert not is_foreign(connection(origin))


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


@pytest.mark.parametrize("host", ["", "[::1", "null"])
def test_a_page_of_no_host_is_foreign_whatever_the_host_is_called(host: str) -> None:
    assert is_foreign(connection("null", host=host))


def test_two_origins_are_none() -> None:
    assert is_foreign(connection(f"http://{HOST}", f"http://{HOST}"))


def test_an_ipv6_host_has_pages_of_its_own_too() -> None:
    assert not is_foreign(connection("http://[::1]:3000", host="[::1]:8888"))
    assert is_foreign(connection("http://[::2]:3000", host="[::1]:8888"))


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
