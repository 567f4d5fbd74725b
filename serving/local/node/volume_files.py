"""Writes volumes to disk. Blocking; call it in a thread.

A volume of files is laid out as the kubelet does: a dated directory with the content, `..data` pointing to it,
and a link per top-level name. An update writes a new directory and turns `..data` in one rename, so a reader
sees either the old or the new content as a whole.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from serving.local.node.envvars import ConfigError
from serving.local.node.volumes import File

_DATA = "..data"


def write_files(directory: Path, files: Mapping[str, File], *, group: int | None = None) -> None:
    """Make `directory` hold exactly `files`. Idempotent: equal content is left alone."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    directory.chmod(0o755)
    current = directory / _DATA
    if current.is_dir() and _same(current, files):
        return
    fresh = directory / f"..{uuid.uuid4().hex}"
    fresh.mkdir(mode=0o755)
    for path, file in files.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        target.write_bytes(file.content)
        target.chmod(file.mode | (0o440 if group is not None else 0))
        if os.geteuid() == 0 and (group is not None or file.owner is not None):
            os.chown(target, -1 if file.owner is None else file.owner, -1 if group is None else group)
    old = current.resolve() if current.is_symlink() else None
    link = directory / f"{_DATA}_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(current)
    names = {PurePosixPath(path).parts[0] for path in files}
    for name in names:
        entry = directory / name
        if not entry.is_symlink():
            entry.symlink_to(f"{_DATA}/{name}")
    for entry in directory.iterdir():
        if not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()
    if old is not None and old != fresh:
        shutil.rmtree(old, ignore_errors=True)


def make_empty_dir(directory: Path, *, group: int | None = None) -> None:
    """A directory that every user of the pod may write to, kept over restarts of containers."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o777 if group is None else 0o2777)
    if group is not None and os.geteuid() == 0:
        os.chown(directory, -1, group)


def sub_path(volume: Path, path: str, *, create: bool) -> Path:
    """The file or directory at `path` below the volume. Raises ConfigError when it would lie outside."""
    if ".." in PurePosixPath(path).parts or path.startswith("/"):
        raise ConfigError(f"subPath {path!r}: must be relative and without '..'")
    root = volume.resolve()
    target = root
    for part in PurePosixPath(path).parts:
        target = (target / part).resolve()
        if root != target and root not in target.parents:
            raise ConfigError(f"subPath {path!r} leaves its volume")
        if create and not target.exists():
            target.mkdir()
            target.chmod(0o777)
    if not target.exists():
        raise ConfigError(f"subPath {path!r} does not exist in its volume")
    return target


def _same(current: Path, files: Mapping[str, File]) -> bool:
    present = {str(path.relative_to(current)) for path in current.rglob("*") if path.is_file()}
    return present == set(files) and all(
        (current / path).read_bytes() == file.content for path, file in files.items()
    )
