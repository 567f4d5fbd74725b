"""The last state of the gateway on disk: what a restarted gateway serves while the API server cannot be asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from serving.gateway.ir import Stored

log = logging.getLogger(__name__)

_SAVE_SECONDS = 1.0


class Store:
    """`snapshot.msgpack` in the data directory. Written at most once a second, whole or not at all."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "snapshot.msgpack"
        self._changed = asyncio.Event()

    def load(self) -> Stored | None:
        """None when there is none. One that cannot be read is kept aside and reported."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return msgspec.msgpack.decode(data, type=Stored)
        except msgspec.DecodeError as error:
            aside = self._path.with_suffix(".unreadable")
            self._path.replace(aside)
            log.error("the stored snapshot cannot be read (%s); it was moved to %s", error, aside)
            return None

    def touch(self) -> None:
        """Something changed."""
        self._changed.set()

    async def run(self, current: Callable[[], Stored]) -> None:
        """Save after changes until cancelled, and once more then."""
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self._save(current())
                await asyncio.sleep(_SAVE_SECONDS)
        finally:
            if self._changed.is_set():
                self._write(msgspec.msgpack.encode(current()))

    async def _save(self, stored: Stored) -> None:
        data = msgspec.msgpack.encode(stored)
        try:
            await asyncio.to_thread(self._write, data)
        except OSError as error:
            log.error("the snapshot was not stored: %s", error)

    def _write(self, data: bytes) -> None:
        replacement = self._path.with_suffix(".new")
        replacement.write_bytes(data)
        replacement.replace(self._path)
