"""Who is asked who they are: by the settings, by an outside issuer, and whether anybody can let others in."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from m3.access.access import tenant_of_outsiders
from m3.access.issuer import Issuer
from m3.access.limits import check_rates
from m3.access.tokens import parse_keys
from m3.errors import IssuerUnavailable, StartError
from m3.sealing import Masters
from m3.settings import LOOPBACK, Settings
from m3.store import DatabaseState
from m3.web.origins import parse_origins
from services.doctor.findings import Finding, shown

_KEYS = (
    "Set TOKEN_KEYS=k1:… to the same 64 hex digits for all gateways and pushers; `make secrets` makes the file "
    "token_keys for compose."
)
_CORRECT = "Correct it for all services; .env.example says what it is for."


async def access(settings: Settings) -> list[Finding]:
    return [doors(settings), *unusable(settings), *await _issuer(settings)]


def unusable(settings: Settings) -> list[Finding]:
    """Settings with which nothing starts, by the parsers of those who would use them."""
    parsers: list[Callable[[], object]] = [
        partial(parse_origins, settings.origins),
        partial(check_rates, settings),
        partial(Masters.of, settings),
    ]
    if settings.auth_required and settings.oidc_issuer is not None:
        parsers.append(partial(tenant_of_outsiders, settings))
    found = []
    for parse in parsers:
        try:
            parse()
        except StartError as error:
            found.append(Finding("settings", "wrong", f"the room does not start: {error}".removesuffix("."), _CORRECT))
    return found


def doors(settings: Settings) -> Finding:
    if not settings.auth_required:
        return _open(settings)
    if settings.token_keys is None:
        if settings.broker_url.get_secret_value().startswith("memory:"):
            return Finding("access", "ok", "people sign in (AUTH=required), with keys for tokens in DATA_DIR")
        return Finding("access", "wrong", "gateways and pushers do not start: TOKEN_KEYS is not set", _KEYS)
    try:
        names = list(parse_keys(settings.token_keys.get_secret_value()))
    except StartError as error:
        return Finding("access", "wrong", f"gateways and pushers do not start: {error}".removesuffix("."), _KEYS)
    others = f", {', '.join(names[1:])} good too" if names[1:] else ""
    return Finding("access", "ok", f"people sign in (AUTH=required); the key {names[0]} signs their tokens{others}")


def _open(settings: Settings) -> Finding:
    if settings.host in LOOPBACK:
        return Finding("access", "ok", "nobody is asked (AUTH=open): who reaches this machine may read and write")
    found = f"nobody is asked (AUTH=open): whoever reaches {settings.host} may read and write"
    if settings.auth_open_anywhere:
        advice = "Set AUTH=required, or see to it that only those reach it who may."
        return Finding("access", "warning", found, advice)
    advice = "Set AUTH=required, or AUTH_OPEN_ANYWHERE=yes if that is what you want."
    return Finding("access", "wrong", "gateways and pushers do not start: AUTH=open is for this machine alone", advice)


async def _issuer(settings: Settings) -> list[Finding]:
    if not settings.auth_required or settings.oidc_issuer is None:
        return []
    where = shown(settings.oidc_issuer)
    try:
        async with Issuer.open(settings.oidc_issuer, settings.oidc_audience) as asked:
            keys = await asked.ask()
    except StartError as error:
        return [Finding("issuer", "wrong", str(error).removesuffix("."), "Correct OIDC_ISSUER and OIDC_AUDIENCE.")]
    except IssuerUnavailable as error:
        advice = "Look whether OIDC_ISSUER is just what it calls itself, and whether a firewall lets this machine out."
        return [Finding("issuer", "wrong", f"{where}: {error}".removesuffix("."), advice)]
    if not keys:
        advice = "Have it sign with RS256, ES256 or EdDSA, and publish the key with its `kid`."
        return [Finding("issuer", "wrong", f"{where} has no key that its tokens could be read with", advice)]
    return [Finding("issuer", "ok", f"{where} vouches for people, with {keys} key{'' if keys == 1 else 's'}")]


def operators(state: DatabaseState, tenants: Sequence[str]) -> list[Finding]:
    """Whether somebody can let others in, and whether the database keeps tenants apart too. ``tenants``: those of a
    room that asks who somebody is."""
    if not tenants or state.operators is None:
        return []
    return [_operators(state.operators, tenants), _wall(state)]


def _operators(came: Mapping[str, bool], tenants: Sequence[str]) -> Finding:
    without = [tenant for tenant in tenants if tenant not in came]
    if without:
        advice = f"Make one: `m3 user add NAME --operator --tenant {without[0]}`."
        return Finding("operators", "warning", f"{_list(without)} has none, so nobody can let others in", advice)
    if never := [tenant for tenant in tenants if not came[tenant]]:
        advice = (
            "Sign in with the one-time password that was printed when it was made, by the first gateway to start "
            "(in compose: docker compose logs gateway), or have another with `m3 user reset NAME`."
        )
        return Finding("operators", "warning", f"that of {_list(never)} has never signed in", advice)
    return Finding("operators", "ok", f"{_list(tenants)} has one who has signed in")


def _wall(state: DatabaseState) -> Finding:
    if state.wall:
        advice = f"Have its administrator say: {'; '.join(state.wall)}. Then start the doors anew."
        return Finding("tenants", "warning", "queries alone keep them apart, the database itself does not", advice)
    return Finding("tenants", "ok", "the database keeps them apart too")


def _list(names: Sequence[str]) -> str:
    return f"{'tenants' if len(names) > 1 else 'tenant'} {', '.join(names)}"
