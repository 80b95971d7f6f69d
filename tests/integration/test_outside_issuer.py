"""Tokens of an outside issuer, whose keys are fetched over real HTTP."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket as sockets
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from m3.access import issuer as issuers
from m3.access.issuer import AGAIN, AGAIN_IN_VAIN, FRESH, LEEWAY, Issuer
from m3.errors import IssuerUnavailable, NotSignedIn, StartError
from tests.support.clock import Clock
from tests.support.issuing import AUDIENCE, OutsideIssuer, ec_key, outside_issuer, rsa_key


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
async def outside() -> AsyncIterator[OutsideIssuer]:
    async with outside_issuer() as outside:
        yield outside


@pytest.fixture
async def issuer(outside: OutsideIssuer, clock: Clock) -> AsyncIterator[Issuer]:
    async with httpx2.AsyncClient(timeout=5) as http:
        yield Issuer(outside.url, AUDIENCE, http, clock)


async def refused(issuer: Issuer, token: str) -> bool:
    with pytest.raises(NotSignedIn):
        await issuer.identify(token)
    return True


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    return f"{part(header)}.{part(claims)}."


async def test_a_good_token_tells_whose_it_is_and_until_when(outside: OutsideIssuer, issuer: Issuer) -> None:
    expires = int(time.time()) + 60
    told = await issuer.identify(outside.token("first", exp=expires, email="ann@example.com", preferred_username="ann"))
    assert told.subject == f"{outside.url} 248289761001"
    assert told.names == ("ann", "ann@example.com", "248289761001")
    assert told.expires == expires


async def test_each_type_of_key_signs_with_its_own_algorithm(outside: OutsideIssuer, issuer: Issuer) -> None:
    outside.keys |= {"curve": ec_key(), "edwards": ed25519.Ed25519PrivateKey.generate()}
    for key_id in outside.keys:
        assert await issuer.identify(outside.token(key_id))
    assert outside.asked == 1
    other = jwt.encode(jwt.decode(outside.token("first"), options={"verify_signature": False}), outside.keys["first"], "RS512", {"kid": "first"})  # fmt: skip
    assert await refused(issuer, other)


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://somebody.example.com"},
        {"iss": None},
        {"aud": "another-room"},
        {"aud": None},
        {"exp": int(time.time()) - LEEWAY - 60},
        {"exp": None},
        {"nbf": int(time.time()) + 86_400},  # of when the tests were collected
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 256},
        {"sub": "a\x00b"},
    ],
)
async def test_a_token_with_a_wrong_claim_is_refused(
    outside: OutsideIssuer, issuer: Issuer, claims: dict[str, Any]
) -> None:
    assert await refused(issuer, outside.token("first", **claims))


async def test_a_token_that_nobody_signed_is_refused(outside: OutsideIssuer, issuer: Issuer) -> None:
    claims = jwt.decode(outside.token("first"), options={"verify_signature": False})
    for algorithm in ("none", "None", "NONE"):
        assert await refused(issuer, unsigned({"alg": algorithm, "kid": "first"}, claims))
    deep = base64.urlsafe_b64encode(b'{"kid": ' + b"[" * 5000).decode()
    for nonsense in ("no token at all", "..", "e30.e30.e30", f"{deep}.e30.e30"):
        assert await refused(issuer, nonsense)


async def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(
    outside: OutsideIssuer, issuer: Issuer
) -> None:
    claims = jwt.decode(outside.token("first"), options={"verify_signature": False})
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    secret = outside.keys["first"].public_key().public_bytes(serialization.Encoding.PEM, form)
    head = unsigned({"alg": "HS256", "kid": "first"}, claims).removesuffix(".")
    signature = hmac.digest(secret, head.encode(), hashlib.sha256)
    assert await refused(issuer, f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}")


async def test_a_token_signed_with_a_key_of_somebody_else_is_refused(outside: OutsideIssuer, issuer: Issuer) -> None:
    assert await refused(issuer, outside.token("first", key=rsa_key()))
    assert await refused(issuer, outside.token("first", key=ec_key()))


async def test_secrets_and_keys_for_other_ends_are_none(outside: OutsideIssuer, issuer: Issuer) -> None:
    outside.beside = [
        {"kty": "oct", "kid": "secret", "k": base64.urlsafe_b64encode(b"x" * 32).decode()},
        outside.public("first") | {"kid": "sealing", "use": "enc"},
        outside.public("first") | {"kid": "longer", "alg": "RS512"},
        {name: value for name, value in outside.public("first").items() if name != "kid"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": [], "crv": {}, "kid": 5},
        {},
    ]
    secret = jwt.encode({"iss": outside.url, "aud": AUDIENCE, "sub": "1", "exp": int(time.time()) + 60}, b"x" * 32, "HS256", {"kid": "secret"})  # fmt: skip
    assert await refused(issuer, secret)
    for key_id in ("sealing", "longer", "broken"):
        assert await refused(issuer, outside.token(key_id, key=outside.keys["first"]))
    assert await issuer.identify(outside.token("first"))


async def test_a_weak_key_is_refused(outside: OutsideIssuer, issuer: Issuer) -> None:
    outside.keys["weak"] = rsa_key(1024)
    with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
        token = outside.token("weak")
    assert await refused(issuer, token)


async def test_keys_that_are_new_are_found_and_asked_for_once_a_minute_at_most(
    outside: OutsideIssuer, issuer: Issuer, clock: Clock
) -> None:
    assert await issuer.identify(outside.token("first"))
    outside.keys["second"] = rsa_key()
    strangers = [outside.token(f"unknown-{number}", key=outside.keys["second"]) for number in range(20)]
    assert await asyncio.gather(*(refused(issuer, token) for token in strangers))
    assert outside.asked == 1
    clock.now += AGAIN
    assert await issuer.identify(outside.token("second"))
    assert outside.asked == 2
    assert await asyncio.gather(*(refused(issuer, token) for token in strangers))
    assert outside.asked == 2


async def test_a_key_that_its_issuer_no_longer_has_is_good_for_an_hour_at_most(
    outside: OutsideIssuer, issuer: Issuer, clock: Clock
) -> None:
    token = outside.token("first")
    assert await issuer.identify(token)
    outside.keys = {"second": rsa_key()}
    assert await issuer.identify(token)
    clock.now += FRESH + 1
    assert await refused(issuer, token)


async def test_while_the_issuer_is_away_keys_that_are_known_go_on_and_others_have_to_wait(
    outside: OutsideIssuer, issuer: Issuer, clock: Clock
) -> None:
    assert await issuer.identify(outside.token("first"))
    outside.away = True
    outside.keys["second"] = rsa_key()
    clock.now += FRESH + 1
    assert await issuer.identify(outside.token("first"))
    with pytest.raises(IssuerUnavailable):
        await issuer.identify(outside.token("second"))
    outside.away = False
    with pytest.raises(IssuerUnavailable):
        await issuer.identify(outside.token("second"))
    clock.now += AGAIN_IN_VAIN
    assert await issuer.identify(outside.token("second"))


async def test_all_who_come_while_it_is_asked_share_the_answer(outside: OutsideIssuer, issuer: Issuer) -> None:
    assert await asyncio.gather(*(issuer.identify(outside.token("first")) for _ in range(20)))
    assert outside.asked == 1


async def test_an_issuer_that_does_not_answer_costs_its_deadline_once(
    outside: OutsideIssuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers, "DEADLINE", 0.2)
    silent = sockets.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{silent.getsockname()[1]}"
    async with httpx2.AsyncClient() as http:
        issuer = Issuer(url, AUDIENCE, http, clock)
        for _ in range(2):
            with pytest.raises(IssuerUnavailable):
                await asyncio.wait_for(issuer.identify(outside.token("first", iss=url)), 5)
    silent.close()


@pytest.mark.parametrize(
    "configuration",
    [
        {"issuer": "https://somebody.example.com"},
        {"jwks_uri": "http://somebody.example.com/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": 5},
        {"padding": "x" * issuers.MAX_ANSWER},
    ],
)
async def test_an_issuer_that_says_nonsense_is_as_one_that_is_away(
    outside: OutsideIssuer, issuer: Issuer, configuration: dict[str, Any]
) -> None:
    outside.configuration = configuration
    with pytest.raises(IssuerUnavailable):
        await issuer.identify(outside.token("first"))


@pytest.mark.parametrize(
    ("url", "audience", "sentence"),
    [
        ("http://id.example.com", AUDIENCE, "https://"),
        ("https://user:password@id.example.com", AUDIENCE, "https://"),
        ("https://", AUDIENCE, "https://"),
        ("https://[", AUDIENCE, "https://"),
        ("https://id.example.com", None, "OIDC_AUDIENCE"),
    ],
)
async def test_an_issuer_that_cannot_be_trusted_is_one_sentence_at_the_start(
    url: str, audience: str | None, sentence: str
) -> None:
    with pytest.raises(StartError, match=sentence):
        async with Issuer.open(url, audience):
            pass


async def test_one_on_this_machine_may_speak_plainly(outside: OutsideIssuer) -> None:
    async with Issuer.open(outside.url, AUDIENCE) as issuer:
        assert await issuer.identify(outside.token("first"))
