"""Access tokens: which are good, and which are not."""

import base64
import hmac
import json
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from m3.access.tokens import Claims, Tokens, issuer_of, keys_in, parse_keys
from m3.errors import NotSignedIn, StartError

KEY, OTHER = bytes([1]) * 32, bytes([2]) * 32
ACCOUNT, SIGN_IN = uuid4(), uuid4()


def tokens(**keys: bytes) -> Tokens:
    return Tokens(keys or {"first": KEY}, 600)


def claims(**others: object) -> dict[str, Any]:
    """Those of a good token, and others in their place."""
    now = int(time.time())
    good = {
        "iss": "m3-room",
        "aud": "m3-room",
        "sub": str(ACCOUNT),
        "tenant": "acme",
        "sid": str(SIGN_IN),
        "iat": now,
        "nbf": now,
        "exp": now + 600,
    }
    return good | others


def signed(key: Any = KEY, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **others: object) -> str:
    return jwt.encode(claims(**others), key, algorithm, headers={"kid": "first"} if headers is None else headers)


def by_hand(header: dict[str, Any], signature: str = "", **others: object) -> str:
    parts = (_encoded(json.dumps(part).encode()) for part in (header, claims(**others)))
    return f"{'.'.join(parts)}.{signature}"


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def test_a_token_says_whose_it_is_from_which_sign_in_and_until_when() -> None:
    before = time.time()
    read = tokens().read(tokens().mint(ACCOUNT, "acme", SIGN_IN))
    assert read == Claims(ACCOUNT, "acme", SIGN_IN, read.expires)
    assert 599 <= read.expires - before <= 601


def test_the_good_token_of_these_tests_is_good() -> None:
    assert tokens().read(signed()).account == ACCOUNT


def rsa_confused() -> str:
    """A public key is no secret: here it signs as if it were one."""
    public = generate_private_key(65537, 2048).public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return jwt.PyJWS().encode(json.dumps(claims()).encode(), pem.replace(b"-----", b""), "HS256", {"kid": "first"})


def without(claim: str) -> str:
    return jwt.encode({name: value for name, value in claims().items() if name != claim}, KEY, headers={"kid": "first"})


def empty_key() -> str:
    unsigned = by_hand({"alg": "HS256", "kid": "first"})[:-1]
    return f"{unsigned}.{_encoded(hmac.digest(b'', unsigned.encode(), 'sha256'))}"


REFUSED: dict[str, Callable[[], str]] = {
    "nothing": lambda: "",
    "no token": lambda: "x",
    "dots": lambda: "..",
    "no json": lambda: "e30.e30.e30",
    "a deep nest": lambda: (
        f"{base64.urlsafe_b64encode(b'[' * 6000).decode()}.{base64.urlsafe_b64encode(b'[' * 6000).decode()}.x"
    ),
    "not ascii": lambda: "é.é.é",
    "alg none": lambda: by_hand({"alg": "none", "kid": "first"}),
    "alg None": lambda: by_hand({"alg": "None", "kid": "first"}),
    "alg none with a signature": lambda: by_hand({"alg": "none", "kid": "first"}, signed().rpartition(".")[2]),
    "no alg": lambda: by_hand({"kid": "first"}),
    "another algorithm of the same key": lambda: signed(KEY * 2, "HS512"),
    "RS256": lambda: signed(generate_private_key(65537, 2048), "RS256"),
    "a public key as a secret": rsa_confused,
    "wrong key": lambda: signed(OTHER),
    "an empty key": empty_key,
    "no kid": lambda: signed(headers={}),
    "unknown kid": lambda: signed(headers={"kid": "second"}),
    "a kid that is a path": lambda: signed(headers={"kid": "../../dev/null"}),
    "a kid that is no text": lambda: by_hand({"alg": "HS256", "kid": ["first"]}, "x"),
    "a key of its own": lambda: by_hand({"alg": "HS256", "kid": "first", "jwk": {"kty": "oct", "k": ""}}, "x"),
    "an extension that must be understood": lambda: signed(headers={"kid": "first", "crit": ["exp"], "exp": 1}),
    "no signature": lambda: signed().rpartition(".")[0] + ".",
    "a changed claim": lambda: ".".join(
        [signed().split(".")[0], signed(tenant="default").split(".")[1], signed().split(".")[2]]
    ),
    "expired": lambda: signed(exp=int(time.time()) - 10),
    "not yet valid": lambda: signed(nbf=int(time.time()) + 60),
    "of the future": lambda: signed(iat=int(time.time()) + 60),
    "wrong issuer": lambda: signed(iss="https://id.example.com"),
    "wrong audience": lambda: signed(aud="another-room"),
    "several audiences": lambda: signed(aud=["m3-room", "another-room"]),
    "an account that is no id": lambda: signed(sub="mei"),
    "a sign-in that is no id": lambda: signed(sid="1"),
    "a sign-in that is no text": lambda: signed(sid=1),
    "an end that is no number": lambda: signed(exp="soon"),
} | {f"without {name}": partial(without, name) for name in claims()}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_refused(make: Callable[[], str]) -> None:
    with pytest.raises(NotSignedIn) as refusal:
        tokens().read(make())
    assert str(ACCOUNT) not in str(refusal.value)


def test_a_token_of_a_second_ago_is_good_on_a_machine_whose_clock_is_behind() -> None:
    ahead = int(time.time()) + 3
    assert tokens().read(signed(iat=ahead, nbf=ahead)).account == ACCOUNT


def test_a_key_is_exchanged_without_a_moment_in_which_a_good_token_is_refused() -> None:
    old, both, swapped, new = (
        tokens(a=KEY),
        tokens(a=KEY, b=OTHER),
        tokens(b=OTHER, a=KEY),
        tokens(b=OTHER),
    )
    for signer, reader in ((old, both), (both, old), (both, swapped), (swapped, both), (swapped, new), (new, swapped)):
        assert reader.read(signer.mint(ACCOUNT, "acme", SIGN_IN)).account == ACCOUNT
    with pytest.raises(NotSignedIn):
        new.read(old.mint(ACCOUNT, "acme", SIGN_IN))


def test_what_follows_a_credential_is_the_same_each_time_and_another_for_each_key() -> None:
    assert list(tokens(a=KEY, b=OTHER).successors("m3r_x")) == [
        *tokens(a=KEY).successors("m3r_x"),
        *tokens(b=OTHER).successors("m3r_x"),
    ]
    assert len({*tokens(a=KEY, b=OTHER).successors("m3r_x"), *tokens(a=KEY, b=OTHER).successors("m3r_y")}) == 4
    assert {len(secret) for secret in tokens(a=KEY, b=OTHER).successors("m3r_x")} == {43}


def test_the_issuer_of_a_token_is_what_it_says() -> None:
    assert issuer_of(signed(iss="https://id.example.com")) == "https://id.example.com"
    assert issuer_of(by_hand({"alg": "HS256"}, "x", iss=["https://id.example.com"])) is None
    assert issuer_of(REFUSED["a deep nest"]()) is None
    assert issuer_of("x") is None


def test_keys_are_read_in_order() -> None:
    read = parse_keys(f"new:{'0a' * 32}, old:{'FF' * 32}")
    assert list(read.items()) == [("new", b"\x0a" * 32), ("old", b"\xff" * 32)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "first",
        "first:",
        f"first:{'1' * 63}",
        f"first:{'1' * 65}",
        f"first:{'g' * 64}",
        f":{'1' * 64}",
        "1" * 64,
        f"first:{'1' * 64},",
        f"first:{'1' * 64} second:{'2' * 64}",
        f"first:{'1' * 64},first:{'2' * 64}",
        f"a name:{'1' * 64}",
        f"first:{'１' * 64}",  # noqa: RUF001 - digits, and none of ours
    ],
)
def test_what_is_no_list_of_keys_is_said_without_repeating_it(text: str) -> None:
    with pytest.raises(StartError, match="TOKEN_KEYS") as refusal:
        parse_keys(text)
    assert "11111111" not in str(refusal.value)


def test_a_room_of_its_own_makes_its_keys_once_and_for_nobody_else(tmp_path: Path) -> None:
    made = keys_in(tmp_path / "data")
    assert keys_in(tmp_path / "data") == made
    assert len(parse_keys(made)) == 1
    assert stat.S_IMODE((tmp_path / "data/token_keys").stat().st_mode) == 0o600
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["token_keys"]
    assert keys_in(tmp_path / "other") != made


def test_a_file_of_keys_that_is_broken_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "token_keys").write_text("first:hush")
    with pytest.raises(StartError, match=r"/token_keys: the key at place 1") as told:
        keys_in(tmp_path)
    assert "hush" not in str(told.value)
    assert "TOKEN_KEYS" not in str(told.value)


def test_keys_that_cannot_be_kept_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(StartError, match="Set TOKEN_KEYS"):
        keys_in(tmp_path / "data")
