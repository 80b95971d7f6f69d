"""An outside issuer of tokens, over real HTTP on loopback, with keys made on the spot."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, get_args

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from fastapi import FastAPI, Response

from m3.settings import Settings
from m3.web import bind, serve

AUDIENCE = "the-room"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
ALGORITHMS: Mapping[type, tuple[str, Any]] = {
    rsa.RSAPrivateKey: ("RS256", jwt.algorithms.RSAAlgorithm),
    ec.EllipticCurvePrivateKey: ("ES256", jwt.algorithms.ECAlgorithm),
    ed25519.Ed25519PrivateKey: ("EdDSA", jwt.algorithms.OKPAlgorithm),
}


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


class OutsideIssuer:
    """``keys`` are those that it has, by their ids; ``asked`` is how often it was asked for them. While it is ``away`` it
    answers nothing else. ``configuration`` is laid over what it says of itself."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, PrivateKey] = {}
        self.asked = 0
        self.away = False
        self.configuration: dict[str, Any] = {}
        self.beside: list[Any] = []  # published with the keys

    def token(self, key_id: str, *, key: PrivateKey | None = None, **claims: Any) -> str:
        """One that is good, but for the claims that are given; a claim of None is left out."""
        key = key or self.keys[key_id]
        good = {"iss": self.url, "aud": AUDIENCE, "sub": "248289761001", "exp": int(time.time()) + 600}
        told = {name: value for name, value in (good | claims).items() if value is not None}
        return jwt.encode(told, key, _of(key)[0], headers={"kid": key_id})

    def public(self, key_id: str) -> dict[str, Any]:
        algorithm, of = _of(self.keys[key_id])
        made: dict[str, Any] = of.to_jwk(self.keys[key_id].public_key(), as_dict=True)
        return made | {"kid": key_id, "use": "sig", "alg": algorithm}


def _of(key: PrivateKey) -> tuple[str, Any]:
    return next(found for kind, found in ALGORITHMS.items() if isinstance(key, kind))


assert set(get_args(PrivateKey)) == set(ALGORITHMS)


@asynccontextmanager
async def outside_issuer() -> AsyncIterator[OutsideIssuer]:
    issuer = OutsideIssuer()
    issuer.keys["first"] = rsa_key()
    app = FastAPI()

    @app.get("/.well-known/openid-configuration")
    async def configuration(response: Response) -> dict[str, Any]:
        if issuer.away:
            response.status_code = 500
        return {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"} | issuer.configuration

    @app.get("/keys")
    async def keys() -> dict[str, Any]:
        issuer.asked += 1
        return {"keys": [*issuer.beside, *(issuer.public(key_id) for key_id in issuer.keys)]}

    with bind("127.0.0.1", 0) as sock:
        async with serve(app, sock, Settings(), grace=1) as address:
            issuer.url = address
            yield issuer
