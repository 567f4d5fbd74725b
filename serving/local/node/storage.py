"""Directories of pods: made, removed, and what is kept of the dead. Blocking; call it in a thread."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from serving.local.node.paths import NodePaths


def make_pod_directory(paths: NodePaths, uid: str) -> None:
    """The sandbox's state directory, out of reach of other users."""
    paths.pod(uid).mkdir(mode=0o700, parents=True, exist_ok=True)
    paths.sandbox(uid).mkdir(mode=0o700, exist_ok=True)


def remove_pod_directory(paths: NodePaths, uid: str) -> None:
    """Everything of a pod but its logs."""
    shutil.rmtree(paths.pod(uid), ignore_errors=True)
    if paths.memory_dir is not None:
        shutil.rmtree(paths.memory_dir / uid, ignore_errors=True)


def remove_strangers(paths: NodePaths, keep: Collection[str]) -> None:
    """Directories of pods that nobody knows any more."""
    for base in (paths.pods, paths.memory_dir):
        if base is not None and base.is_dir():
            for entry in base.iterdir():
                if entry.name not in keep:
                    shutil.rmtree(entry, ignore_errors=True)


def prune_logs(paths: NodePaths, *, live: Collection[str], max_bytes: int, max_age: float, now: float) -> None:
    """Remove logs of dead pods, oldest first, until the rest is neither too much nor too old.

    `live`: directory names of pods whose logs stay.
    """
    dead = []
    if paths.logs.is_dir():
        dead = [_weigh(entry) for entry in paths.logs.iterdir() if entry.name not in live]
    total = 0
    for changed_at, size, entry in sorted(dead, reverse=True):
        total += size
        if total > max_bytes or now - changed_at > max_age:
            shutil.rmtree(entry, ignore_errors=True)


def _weigh(directory: Path) -> tuple[float, int, Path]:
    """(last change, bytes, path); a file that vanishes meanwhile does not count."""
    newest, size = 0.0, 0
    for path in directory.rglob("*"):
        try:
            info = path.stat()
        except FileNotFoundError:
            continue
        newest = max(newest, info.st_mtime)
        size += info.st_size
    return newest, size, directory
