"""Durability: one SQLite file, written by one thread, so that a commit never blocks the event loop.

Waiting changes are committed together (group commit). WAL with `synchronous=NORMAL`: a commit survives the death
of the process; a power cut may lose the last moments but never tears the file. Lost revisions must not be given
out twice, because a watcher may have seen them: unless the file was closed cleanly, numbering goes on `GAP`
higher, so older resource versions answer 410 and clients list again.

The file is held exclusively: a second server on it is refused.
"""

from __future__ import annotations

import enum
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from serving.local.apiserver.state import Entry, Key, Staged, load_entry

SCHEMA_VERSION: Final = 1
GAP: Final = 100_000
_APPLICATION_ID: Final = 0x6E646C73  # "ndls"

_SCHEMA: Final = """
CREATE TABLE objects (
  storage TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  revision INTEGER NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (storage, namespace, name)
) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


class StateError(Exception):
    """The state file cannot be used. Nothing in it was changed."""


class CorruptState(StateError):
    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"state database {path} is damaged: {problem}. Nothing was changed. Restore it from a backup, "
            f"salvage it with `sqlite3 {path} .recover`, or move it away to start empty: mv {path} {path}.damaged"
        )


class StateInUse(StateError):
    def __init__(self, path: Path) -> None:
        super().__init__(
            f"state database {path} is in use by another API server; stop it or choose another directory"
        )


class StateTooNew(StateError):
    def __init__(self, path: Path, found: int) -> None:
        super().__init__(
            f"state database {path} has schema version {found}, this program knows {SCHEMA_VERSION}; "
            "use the newer nodeless that wrote it"
        )


OnDone = Callable[[int, BaseException | None], None]
"""Called in the writer thread: how many of the oldest changes are durable, or why all of them failed."""


class _Signal(enum.Enum):
    STOP = enum.auto()
    RESUME = enum.auto()


class Journal:
    """Blocking; `open` and `close` are called in a worker thread, `append` anywhere."""

    def __init__(self, connection: sqlite3.Connection, path: Path, revision: int, entries: list[Entry]) -> None:
        self._connection = connection
        self._path = path
        self._queue: queue.SimpleQueue[Staged | _Signal] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._dirty = False
        self._revision = revision
        self.loaded_revision = revision
        self.loaded = entries

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Open or create. Raises CorruptState, StateInUse, StateTooNew or OSError."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            path.touch(mode=0o600)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.5)
        try:
            _prepare(connection, path)
            revision, entries = _load(connection, path)
        except sqlite3.DatabaseError as error:
            connection.close()
            if "locked" in str(error):
                raise StateInUse(path) from error
            raise CorruptState(path, str(error)) from error
        except StateError:
            connection.close()
            raise
        return cls(connection, path, revision, entries)

    def start(self, on_done: OnDone) -> None:
        self._thread = threading.Thread(target=self._run, args=(on_done,), name="state-writer", daemon=True)
        self._thread.start()

    def append(self, staged: Staged) -> None:
        self._queue.put(staged)

    def resume(self) -> None:
        """Accept changes again after a failure; those appended before this call are dropped unwritten."""
        self._queue.put(_Signal.RESUME)

    def close(self) -> None:
        """Write what is waiting, mark the file clean, release it."""
        if self._thread is not None:
            self._queue.put(_Signal.STOP)
            self._thread.join()
        try:
            if self._dirty:
                self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('clean', ?)", (self._revision,))
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._connection.close()

    def _run(self, on_done: OnDone) -> None:
        failed = False
        while True:
            batch, signal = self._take()
            if batch and not failed:
                try:
                    self._commit(batch)
                except Exception as error:  # whatever it is, the writers wait for the answer
                    failed = True
                    on_done(len(batch), error)
                else:
                    on_done(len(batch), None)
            if signal is _Signal.STOP:
                return
            if signal is _Signal.RESUME:
                failed = False

    def _take(self) -> tuple[list[Staged], _Signal | None]:
        """Block for the next changes, up to a signal or to the end of what is waiting now."""
        batch: list[Staged] = []
        item = self._queue.get()
        while not isinstance(item, _Signal):
            batch.append(item)
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, None
        return batch, item

    def _commit(self, batch: list[Staged]) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            if not self._dirty:
                execute("DELETE FROM meta WHERE name = 'clean'")
            for event, data in batch:
                entry = event.entry
                if data is None:
                    execute("DELETE FROM objects WHERE storage = ? AND namespace = ? AND name = ?", entry.key)
                else:
                    execute(
                        "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", (*entry.key, entry.revision, data)
                    )
            newest = batch[-1].event.revision
            execute("INSERT OR REPLACE INTO meta VALUES ('revision', ?)", (newest,))
            execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise
        self._dirty = True
        self._revision = newest


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    # With an exclusive lock the first write transaction takes the lock, and it is held until close.
    connection.execute("BEGIN IMMEDIATE")
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    if tables == 0 and application in (0, _APPLICATION_ID):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        for statement in _SCHEMA.split(";"):
            if statement.strip():
                connection.execute(statement)
        connection.execute("INSERT INTO meta VALUES ('revision', 1), ('clean', 1)")
        connection.execute("COMMIT")
        return
    (problem,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if problem != "ok":
        raise CorruptState(path, str(problem))
    if application != _APPLICATION_ID:
        raise CorruptState(path, "it is a database of another program")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise StateTooNew(path, version)


def _load(connection: sqlite3.Connection, path: Path) -> tuple[int, list[Entry]]:
    meta: dict[str, int] = dict(connection.execute("SELECT name, value FROM meta"))
    if "revision" not in meta:
        raise CorruptState(path, "the revision counter is missing")
    revision = meta["revision"]
    entries: list[Entry] = []
    for storage, namespace, name, at, data in connection.execute("SELECT * FROM objects"):
        try:
            entries.append(load_entry(Key(storage, namespace, name), at, bytes(data)))
        except (ValueError, TypeError) as error:
            raise CorruptState(path, f"object {storage} {namespace}/{name} is not JSON ({error})") from error
        revision = max(revision, at)
    if meta.get("clean") != revision:
        revision += GAP
    return revision, entries
