"""Advisory file locks, because the CLI, the controller and the node agent share one store.

`flock` belongs to the open file, so it also excludes two holders within one process, and the kernel frees it
when a process dies. A lock file may be removed by whoever holds it exclusively; a waiter notices that the file
it locked is no longer the one on disk and opens the new one.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from serving.local.images.threads import run

_FIRST_WAIT_SECONDS = 0.005
_LONGEST_WAIT_SECONDS = 0.2


class FileLock:
    """One held lock. `release` is idempotent."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __del__(self) -> None:
        """A waiter that was cancelled at the moment of success never sees the lock."""
        self.release()


def try_lock(path: Path, *, exclusive: bool) -> FileLock | None:
    """The lock, or None while somebody else holds it. Creates the file."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        if _is_current(fd, path):
            return FileLock(fd)
        os.close(fd)


def _is_current(fd: int, path: Path) -> bool:
    try:
        on_disk = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(fd)
    return (held.st_dev, held.st_ino) == (on_disk.st_dev, on_disk.st_ino)


async def lock(path: Path, *, exclusive: bool) -> FileLock:
    """Wait for the lock. The kernel gives no event for a freed lock that could be waited for without a thread,
    and a thread could not be cancelled: so it is asked again, at most each 0.2 s."""
    wait = _FIRST_WAIT_SECONDS
    while (held := await run(None, try_lock, path, exclusive=exclusive)) is None:
        await asyncio.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
    return held


@asynccontextmanager
async def locked(path: Path, *, exclusive: bool) -> AsyncIterator[None]:
    held = await lock(path, exclusive=exclusive)
    try:
        yield
    finally:
        held.release()
