"""The database: whether it can be had and written, whether it is the program's version, and what its clock says."""

from collections.abc import Mapping, Sequence
from typing import Literal

from m3.errors import Obstacle, Unreached
from m3.store import DatabaseState, is_pooled, look
from m3.store.sql import migrations
from services.doctor.access import operators
from services.doctor.findings import Finding, shown, unreached

#: The oldest PostgreSQL that the room runs on, and as the server has its number.
OLDEST = 15
_OLDEST_NUMBER = OLDEST * 10_000
#: The part of the places for connections past which few are left for another process.
CROWDED = 0.8
#: Seconds by which two clocks may differ.
SKEW = 1.0

_ADVICE: Mapping[Obstacle, str] = {
    "url": "Write DATABASE_URL as postgresql://user:password@host:5432/database (/ and @ are written %2F and %40).",
    "name": "Correct the host in DATABASE_URL; between containers it is the name of the other service, as long as "
    "that one runs.",
    "away": "Start PostgreSQL, or correct host and port in DATABASE_URL; in a container localhost is that container.",
    "silent": "Look whether PostgreSQL hangs, or a firewall swallows what is sent to it.",
    "tls": "Correct sslmode in DATABASE_URL, or give PostgreSQL a certificate that is trusted here.",
    "key": "Correct user and password in DATABASE_URL (/ and @ are written %2F and %40) or in the file "
    "/run/secrets/database_password, or let the user in (pg_hba.conf, GRANT).",
    "place": "Correct the name in DATABASE_URL, or make the database (CREATE DATABASE).",
    "busy": "Wait for its start to end; where it is full, raise max_connections, or lower DATABASE_POOL.",
    "pooler": "Have DATABASE_URL lead to PostgreSQL itself: with a pooler in between the locks of threads do not hold.",
}
_OTHERWISE = "Look into PostgreSQL's log."
_NOT_REACHED = "the database was not reached"


async def database(url: str | None, tenants: Sequence[str]) -> list[Finding]:
    """``tenants``: those of a room that asks who somebody is."""
    if url is None:
        return [Finding("database", "skipped", "`m3 up` brings its own and sees to its tables (DATABASE_URL is unset)")]
    where = shown(url)
    try:
        state = await look(url)
    except Unreached as error:
        return [
            unreached("database", where, error, _ADVICE.get(error.obstacle, _OTHERWISE)),
            Finding("migrations", "skipped", _NOT_REACHED),
            Finding("clock", "skipped", _NOT_REACHED),
        ]
    return [
        server(state, where),
        tables(state),
        connections(state),
        await _sessions(url),
        clock(state),
        *operators(state, tenants),
    ]


def server(state: DatabaseState, where: str) -> Finding:
    found = f"PostgreSQL {state.version} at {where}"
    if state.version_number < _OLDEST_NUMBER:
        return Finding("database", "wrong", found, f"Upgrade PostgreSQL to {OLDEST} or newer.")
    if state.read_only:
        advice = "Have DATABASE_URL lead to the primary, or end default_transaction_read_only."
        return Finding("database", "wrong", f"{found}, read-only: nothing can be recorded", advice)
    if state.full:
        advice = "Make room where it keeps its data (df -h), and look what filled it."
        return Finding("database", "wrong", f"{found}, its disk is full: nothing can be recorded", advice)
    return Finding("database", "ok", found)


def tables(state: DatabaseState) -> Finding:
    ours = {migration.version: migration.checksum for migration in migrations()}
    missing = [version for version in ours if version not in state.migrations]
    newer = [version for version in state.migrations if version not in ours]
    changed = [version for version in ours if state.migrations.get(version, ours[version]) != ours[version]]
    if changed:
        return _tables("wrong", f"{_list(changed)} differ from this program's", "Run the program that they are of.")
    if missing and not state.may_create:
        advice = "Let its owner run `m3 migrate`, or GRANT CREATE ON SCHEMA public TO the user in DATABASE_URL."
        return _tables("wrong", f"{_list(missing)} missing, and this user may make no tables", advice)
    if missing:
        return _tables("wrong", f"{_list(missing)} missing", "Run `m3 migrate`, or start a process of the room.")
    if state.may_write is False:
        return _tables("wrong", "this user may not write the tables", "GRANT it, or take their owner in DATABASE_URL.")
    if newer:
        return _tables("warning", f"{_list(newer)} newer than this program", "Upgrade this program.")
    return _tables("ok", f"all {len(ours)} are there", "")


def connections(state: DatabaseState) -> Finding:
    found = f"{state.connections} of {state.places} in use"
    if state.connections > CROWDED * state.places:
        advice = "Raise max_connections, or lower DATABASE_POOL: each process takes so many, an agent one more."
        return Finding("connections", "warning", found, advice)
    return Finding("connections", "ok", found)


def sessions(*, pooled: bool) -> Finding:
    if pooled:
        found = "connections share sessions: a transaction pooler is in between"
        return Finding("sessions", "wrong", found, _ADVICE["pooler"])
    return Finding("sessions", "ok", "each connection has its own")


async def _sessions(url: str) -> Finding:
    try:
        return sessions(pooled=await is_pooled(url))
    except Unreached as error:
        return unreached("sessions", "no two connections", error, _ADVICE.get(error.obstacle, _OTHERWISE))


def clock(state: DatabaseState) -> Finding:
    apart = abs(state.ahead)
    which = "ahead of" if state.ahead > 0 else "behind"
    if apart > SKEW + state.uncertain:
        advice = (
            "Have both machines keep time (NTP): how long messages waited, when they expire, and until when "
            "somebody is signed in, depends on it."
        )
        return Finding("clock", "warning", f"the database's is {apart:.1f} s {which} this machine's", advice)
    return Finding("clock", "ok", f"{apart * 1000:.0f} ms from the database's, ± {state.uncertain * 1000:.0f}")


def _tables(mark: Literal["ok", "warning", "wrong"], found: str, advice: str) -> Finding:
    return Finding("migrations", mark, found, advice)


def _list(versions: list[str]) -> str:
    return ", ".join(sorted(versions))
