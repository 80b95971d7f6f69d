"""A command beside a room that runs on its own database."""

import asyncio
import stat
from pathlib import Path

import asyncpg
import pytest

from m3.errors import StartError
from m3.store import embedded
from m3.store.embedded import ADDRESS, embedded_postgres, reached_postgres


@pytest.fixture
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the user gets to whom root gives the database, with the address that a killed room left."""
    data_dir = tmp_path_factory.mktemp("reached", numbered=True) / "data"
    data_dir.mkdir()
    (data_dir / ADDRESS).write_text("postgresql://of-a-room-that-was-killed/")
    return data_dir


async def answer(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT 1"))
    finally:
        await connection.close()


async def test_it_is_started_where_no_room_runs_and_ended_again(data_dir: Path) -> None:
    async with reached_postgres(data_dir) as url:
        assert await answer(url) == 1
    assert not (data_dir / ADDRESS).exists()
    assert not (data_dir / "postgres/postmaster.pid").exists()


async def test_beside_a_room_it_is_the_rooms_and_outlives_the_command(data_dir: Path) -> None:
    async with embedded_postgres(data_dir) as rooms:
        assert stat.S_IMODE((data_dir / ADDRESS).stat().st_mode) == 0o600
        async with reached_postgres(data_dir) as url:
            assert url == rooms
        assert await answer(rooms) == 1


async def test_a_command_waits_for_a_room_that_starts(data_dir: Path) -> None:
    with embedded._sole_owner(data_dir):
        (data_dir / ADDRESS).write_text("")  # of which it is not told half
        waiting = asyncio.create_task(_reach(data_dir))
        await asyncio.sleep(2 * embedded.LOOK_INTERVAL)
        (data_dir / ADDRESS).write_text("postgresql://at-last/")
        assert await waiting == "postgresql://at-last/"


async def test_a_room_that_tells_nothing_is_one_sentence(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "PATIENCE", 0.2)
    (data_dir / ADDRESS).unlink()
    with embedded._sole_owner(data_dir), pytest.raises(StartError, match="does not tell how to reach its database"):
        await _reach(data_dir)


async def _reach(data_dir: Path) -> str:
    async with reached_postgres(data_dir) as url:
        return url
