from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from serving.activator.holds import Release
from serving.activator.journal import FIRST_RECORDS, MAX_AGE_SECONDS, RECORD_BYTES, Journal, LedgerBusy
from tests.activator.values import KEY, hold


def release(number: int, *, at: float = 1000.0, request_id: str = "r") -> Release:
    return Release(id=number, hold=hold(f"h{number}", request_id=request_id), pod="pod-uid", address="a:1", at=at)


def restored(directory: Path, now: float = 1000.0) -> list[Release]:
    with Journal(directory) as journal:
        return [entry.release for entry in journal.restore(now)]


def test_what_is_live_is_restored_oldest_first(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for number in (1, 2, 3):
            journal.add(KEY, release(number, at=1010.0 - number))
        journal.remove(2)
        journal.remove(77)
    assert restored(tmp_path) == [release(3, at=1007.0), release(1, at=1009.0)]


def test_places_are_used_again(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for number in range(10 * FIRST_RECORDS):
            journal.add(KEY, release(number))
            journal.remove(number)
        assert journal.path.stat().st_size == (FIRST_RECORDS + 1) * RECORD_BYTES
    assert restored(tmp_path) == []


def test_it_grows_and_loses_nothing(tmp_path: Path) -> None:
    count = 2 * FIRST_RECORDS + 10
    with Journal(tmp_path) as journal:
        for number in range(count):
            journal.add(KEY, release(number, at=1000.0 + number))
    assert [found.id for found in restored(tmp_path)] == list(range(count))
    with Journal(tmp_path) as journal:
        journal.restore(1000.0)
        journal.add(KEY, release(count, at=9000.0))
    assert [found.id for found in restored(tmp_path)] == [*range(count), count]


def test_left_overs_are_not_restored(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.add(KEY, release(1, at=0.0))
    assert restored(tmp_path, now=MAX_AGE_SECONDS + 1) == []
    assert restored(tmp_path, now=1.0) == [], "and their place is free"


def test_a_request_id_too_long_for_a_record_is_dropped(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.add(KEY, release(1, request_id="x" * 4096))
    assert restored(tmp_path)[0].hold.request_id == ""


def test_a_record_that_cannot_be_read_is_freed(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.add(KEY, release(1))
        path = journal.path
    data = bytearray(path.read_bytes())
    data[RECORD_BYTES + 3 : RECORD_BYTES + 20] = b"\xc1" * 17
    path.write_bytes(data)
    assert restored(tmp_path) == []


def test_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "releases.ledger").write_bytes(b"something else")
    with pytest.raises(ValueError, match="not a ledger of releases; move it away"):
        Journal(tmp_path)
    assert (tmp_path / "releases.ledger").read_bytes() == b"something else"


def test_one_agent_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path), pytest.raises(LedgerBusy, match=r"releases\.ledger: in use by another gateway agent"):
        Journal(tmp_path)
    Journal(tmp_path).close()


def test_it_survives_a_kill(tmp_path: Path) -> None:
    encoded = msgspec.json.encode(release(5)).decode()
    code = (
        "import os, signal, sys, msgspec; from pathlib import Path;"
        "from serving.activator.journal import Journal; from serving.activator.holds import Release;"
        "journal = Journal(Path(sys.argv[1]));"
        f"journal.add({KEY!r}, msgspec.json.decode({encoded!r}, type=Release));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert result.returncode == -9
    assert restored(tmp_path) == [release(5)]
