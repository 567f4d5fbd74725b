"""The SQLite journal: what survives, what is refused, what happens when the disk refuses."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from serving.api.meta import JsonObject
from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.journal import GAP, CorruptState, Journal, StateInUse, StateTooNew
from serving.local.apiserver.state import Key, State
from serving.local.apiserver.storage import Storage


def obj(name: str, value: str = "") -> JsonObject:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "uid": name}, "data": {"v": value}}


def key(name: str) -> Key:
    return Key("configmaps", "default", name)


async def put(storage: Storage, name: str, value: str | None) -> None:
    await storage.write(
        key(name), None if value is None else obj(name, value), expected=storage.state.head(key(name))
    )


def kill(storage: Storage) -> None:
    """What is left when the process dies: no mark of a clean end, no lock."""
    journal = storage._journal
    journal._connection.close()


async def test_state_survives_a_restart_without_a_write(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    storage = await Storage.open(path)
    await put(storage, "a", "1")
    await put(storage, "b", "1")
    await put(storage, "b", None)
    revision = storage.state.revision
    await storage.close()
    before = path.read_bytes()
    storage = await Storage.open(path)
    assert storage.state.revision == revision
    assert [entry.obj["data"] for entry in storage.state.select("configmaps")] == [{"v": "1"}]
    await storage.close()
    assert path.read_bytes() == before
    assert path.stat().st_mode & 0o777 == 0o600


async def test_after_a_crash_nothing_is_lost_and_revisions_jump(tmp_path: Path) -> None:
    storage = await Storage.open(tmp_path / "state.db")
    await put(storage, "a", "1")
    revision = storage.state.revision
    kill(storage)
    storage = await Storage.open(tmp_path / "state.db")
    assert storage.state.get(key("a")) is not None
    assert storage.state.revision == revision + GAP
    with pytest.raises(StatusError) as caught:
        storage.state.since("configmaps", revision)
    assert caught.value.code == 410
    await storage.close()


async def test_concurrent_writes_share_commits_and_keep_their_order(tmp_path: Path) -> None:
    storage = await Storage.open(tmp_path / "state.db")
    revisions: list[int] = []
    storage.listen(lambda event: revisions.append(event.revision))
    await asyncio.gather(*(put(storage, f"n{number}", "x") for number in range(200)))
    assert revisions == list(range(2, 202))
    await storage.close()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"no database at all" * 100, id="garbage"),
        pytest.param(lambda data: data[:4096] + b"\xff" * (len(data) - 4096), id="torn"),
        pytest.param(lambda data: data[: len(data) // 2], id="cut"),
    ],
)
async def test_a_damaged_file_is_reported_and_left_alone(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "state.db"
    storage = await Storage.open(path)
    await put(storage, "a", "1" * 20_000)
    await storage.close()
    assert callable(damage)
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(CorruptState) as caught:
        await Storage.open(path)
    assert str(path) in str(caught.value)
    assert "mv " in str(caught.value)
    assert path.read_bytes() == before


async def test_an_object_that_is_no_json_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    storage = await Storage.open(path)
    await put(storage, "a", "1")
    await storage.close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE objects SET data = 'nonsense'")
    connection.commit()
    connection.close()
    with pytest.raises(CorruptState, match="configmaps default/a is not JSON"):
        await Storage.open(path)


def test_databases_of_others(tmp_path: Path) -> None:
    path = tmp_path / "foreign.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()
    with pytest.raises(CorruptState, match="another program"):
        Journal.open(path)
    path = tmp_path / "newer.db"
    Journal.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()
    with pytest.raises(StateTooNew, match="schema version 99"):
        Journal.open(path)


async def test_a_second_server_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    first = await asyncio.to_thread(Journal.open, path)
    with pytest.raises(StateInUse, match="in use by another API server"):
        await asyncio.to_thread(Journal.open, path)
    await asyncio.to_thread(first.close)
    await asyncio.to_thread((await asyncio.to_thread(Journal.open, path)).close)


class FullDisk(Journal):
    """Refuses commits while `full`."""

    full = False

    def _commit(self, batch: object) -> None:
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        super()._commit(batch)  # type: ignore[arg-type]


async def test_a_refused_write_is_void_and_the_next_one_works(tmp_path: Path) -> None:
    journal = await asyncio.to_thread(FullDisk.open, tmp_path / "state.db")
    assert isinstance(journal, FullDisk)
    storage = Storage.over(State(journal.loaded, revision=journal.loaded_revision), journal)
    await put(storage, "a", "1")
    journal.full = True
    results = await asyncio.gather(*(put(storage, f"n{n}", "x") for n in range(5)), return_exceptions=True)
    assert all(isinstance(result, StatusError) and result.code == 500 for result in results)
    assert "disk is full" in str(results[0])
    assert storage.state.revision == 2
    journal.full = False
    await put(storage, "a", "2")
    assert [entry.key.name for entry in storage.state.heads("configmaps")] == ["a"]
    assert storage.state.revision == 3
    await storage.close()
    storage = await Storage.open(tmp_path / "state.db")
    assert [entry.obj["data"] for entry in storage.state.select("configmaps")] == [{"v": "2"}]
    await storage.close()


async def test_a_cancelled_writer_leaves_a_whole_write(tmp_path: Path) -> None:
    storage = await Storage.open(tmp_path / "state.db")
    task = asyncio.create_task(put(storage, "a", "1"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await put(storage, "b", "1")
    assert [entry.key.name for entry in storage.state.select("configmaps")] == ["a", "b"]
    await storage.close()
