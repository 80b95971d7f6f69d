"""An outside issuer of tokens (OpenID Connect): whom it vouches for, by keys that it publishes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import jwt
import structlog
from pydantic import BaseModel, ValidationError

from m3.errors import IssuerUnavailable, NotSignedIn, StartError
from m3.settings import LOOPBACK

#: Seconds for which keys are taken to be all that there are.
FRESH = 3600.0
#: Seconds between two looks for keys, and where the last one was in vain.
AGAIN = 60.0
AGAIN_IN_VAIN = 5.0
#: Seconds that one look may take.
DEADLINE = 5.0
#: Most that is read of an answer, in bytes, and most keys that are kept.
MAX_ANSWER = 256 * 1024
MAX_KEYS = 100
#: Seconds by which its clock and ours may differ.
LEEWAY = 30.0
#: Longest name of its own that it may have for somebody, in characters, as its specification has it.
MAX_SUBJECT = 255

#: What a key of a type signs with, so that no token chooses: its type, and its curve where it has one.
_ALGORITHMS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
#: A proxy from the environment is not for this machine.
_DIRECT = {f"all://{f'[{host}]' if ':' in host else host}": None for host in LOOPBACK}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outsider:
    """Somebody whom the issuer vouches for. ``subject``: the issuer and its own name for them, which stays; ``names``:
    what they may be called, best first; ``expires``: until when, in seconds since the epoch."""

    subject: str
    names: tuple[str, ...]
    expires: float


class _Configuration(BaseModel):
    issuer: str
    jwks_uri: str


class _KeySet(BaseModel):
    keys: list[dict[str, Any]]


Told = TypeVar("Told", bound=BaseModel)


class Issuer:
    def __init__(
        self, url: str, audience: str, http: httpx2.AsyncClient, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.url = url
        self._audience = audience
        self._http = http
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._looked = float("-inf")
        self._in_vain = False
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, audience: str | None) -> AsyncIterator["Issuer"]:
        """Does not ask it for anything yet. Raises StartError."""
        if not audience:
            raise StartError("OIDC_ISSUER needs OIDC_AUDIENCE: its tokens for others must not open this room.")
        if not _may_be_asked(url):
            raise StartError("OIDC_ISSUER must begin with https://, unless it is on this machine.")
        # No redirects: they would have another server say whose keys are good.
        async with httpx2.AsyncClient(
            follow_redirects=False, timeout=DEADLINE, mounts=_DIRECT, headers={"Accept-Encoding": "identity"}
        ) as http:
            yield cls(url, audience, http)

    async def identify(self, token: str) -> Outsider:
        """Whom the token is of. Raises NotSignedIn, and IssuerUnavailable where it takes a key that is not known here
        while the issuer is away."""
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            if not isinstance(key_id, str):
                raise NotSignedIn("The token does not say which key signed it.")
            key = await self._key(key_id)
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._audience,
                issuer=self.url,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"], "enforce_minimum_key_length": True},
            )
        except jwt.ExpiredSignatureError:
            raise NotSignedIn("The token has expired.") from None
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise NotSignedIn("The token is not good.") from None
        return self._outsider(claims)

    async def ask(self) -> int:
        """Have it say which keys it has; returns how many. Raises IssuerUnavailable, which says why it did not."""
        try:
            async with asyncio.timeout(DEADLINE):
                self._keys = await self._published()
        except TimeoutError:
            raise IssuerUnavailable("It does not answer.") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise IssuerUnavailable(f"It cannot be asked ({type(error).__name__}: {error}).") from error
        except ValueError as error:
            raise IssuerUnavailable(f"It says nonsense: {error}.") from error
        return len(self._keys)

    def _outsider(self, claims: Mapping[str, Any]) -> Outsider:
        subject = claims["sub"]
        if not (0 < len(subject) <= MAX_SUBJECT and subject.isprintable()):
            raise NotSignedIn("The token is not good.")
        named = (claims.get("preferred_username"), claims.get("email"), subject)
        names = tuple(name for name in named if isinstance(name, str))
        return Outsider(f"{self.url} {subject}", names, float(claims["exp"]))

    async def _key(self, key_id: str) -> jwt.PyJWK:
        """Keys that are known hold on while the issuer is away."""
        if key_id not in self._keys or self._clock() > self._looked + FRESH:
            await self._look(key_id)
        if key_id in self._keys:
            return self._keys[key_id]
        if self._in_vain:
            raise IssuerUnavailable("The issuer of this token is away, and its key is not known here.")
        raise NotSignedIn("The token is signed with a key that its issuer does not have.")

    async def _look(self, key_id: str) -> None:
        """Ask for the keys, unless that was just done. One asks, and who cannot do without waits for it."""
        if self._one_at_a_time.locked() and key_id in self._keys:
            return
        async with self._one_at_a_time:
            if self._clock() < self._looked + (AGAIN_IN_VAIN if self._in_vain else AGAIN):
                return
            try:
                await self.ask()
                self._in_vain = False
            except IssuerUnavailable as error:
                log.warning("the issuer's keys were not had", issuer=self.url, reason=str(error))
                self._in_vain = True
            self._looked = self._clock()

    async def _published(self) -> dict[str, jwt.PyJWK]:
        """What it has just now. Raises ValueError where it says something else, and httpx2's errors."""
        told = await self._read(f"{self.url.rstrip('/')}/.well-known/openid-configuration")
        configuration = _understood(_Configuration, told)
        if configuration.issuer != self.url:
            raise ValueError("it calls itself otherwise than OIDC_ISSUER does")
        if not _may_be_asked(configuration.jwks_uri):
            raise ValueError("its keys are not at https://")
        published = _understood(_KeySet, await self._read(configuration.jwks_uri)).keys
        return {str(key["kid"]): made for key in published[:MAX_KEYS] if (made := _made(key)) is not None}

    async def _read(self, url: str) -> bytes:
        async with self._http.stream("GET", url) as response:
            if response.status_code != httpx2.codes.OK:
                raise ValueError(f"status {response.status_code}")
            if response.headers.get("Content-Encoding", "identity") != "identity":  # few bytes may unfold into many
                raise ValueError("it is compressed, which was not asked for")
            body = b""
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > MAX_ANSWER:
                    raise ValueError("too long")
        return body


def _understood(kind: type[Told], told: bytes) -> Told:
    try:
        return kind.model_validate_json(told)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ValueError(f"{where or 'its answer'}: {problem['msg']}") from None


def _made(published: dict[str, Any]) -> jwt.PyJWK | None:
    """A key for signatures that we understand; it may have others besides."""
    named = [published.get(part) for part in ("kty", "crv")]
    algorithm = next((name for of, name in _ALGORITHMS.items() if list(of) == named), None)
    if algorithm is None or published.get("use", "sig") != "sig" or published.get("alg", algorithm) != algorithm:
        return None
    if not isinstance(published.get("kid"), str):
        return None
    try:
        return jwt.PyJWK(published, algorithm)
    except jwt.PyJWTError:
        return None


def _may_be_asked(url: str) -> bool:
    """Whether nobody in between can answer in its place."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    return (
        bool(host)
        and parts.username is None
        and (parts.scheme == "https" or (parts.scheme == "http" and host in LOOPBACK))
    )
