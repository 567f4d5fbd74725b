"""Writes volumes to disk. Blocking; call it in a thread.

A volume of files is laid out as the kubelet does: a dated directory with the content, `..data` pointing to it,
and a link per top-level name. An update writes a new directory and turns `..data` in one rename, so a reader
sees either the old or the new content as a whole.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence, Set
from pathlib import Path, PurePosixPath

from serving.local.node.envvars import ConfigError
from serving.local.node.volumes import File

_DATA = "..data"


def write_files(directory: Path, files: Mapping[str, File], *, group: int | None = None) -> None:
    """Make `directory` hold exactly `files`. Idempotent: equal content is left alone."""
    # Plain strings and system calls: this is done at each start of a pod, and pathlib doubles its time.
    root = str(directory)
    os.makedirs(root, mode=0o755, exist_ok=True)
    os.chmod(root, 0o755)  # noqa: S103 - pods of any user look into it
    current = f"{root}/{_DATA}"
    old = os.readlink(current) if os.path.islink(current) else None
    names = {path.split("/", 1)[0] for path in files}
    if old is not None and _same(Path(current), files):
        _tidy(root, old, names)
        return
    fresh = f"..{secrets.token_hex(8)}"
    os.mkdir(f"{root}/{fresh}", 0o755)
    try:
        for path, file in files.items():
            _write(f"{root}/{fresh}", path, file, group)
    except OSError:
        shutil.rmtree(f"{root}/{fresh}", ignore_errors=True)  # each try would leave one more
        raise
    # Names come before what they lead to and go after it, so that one who is killed here leaves nothing wrong.
    for name in names:
        with contextlib.suppress(FileExistsError):
            os.symlink(f"{_DATA}/{name}", f"{root}/{name}")
    link = f"{current}_tmp"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(link)
    os.symlink(fresh, link)
    os.replace(link, current)
    if old is not None:
        _tidy(root, fresh, names)


def _tidy(root: str, data: str, names: Set[str]) -> None:
    """Remove what is left of earlier contents."""
    for entry in os.listdir(root):
        if entry in (_DATA, data) or entry in names:
            continue
        path = f"{root}/{entry}"
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)


def _write(root: str, path: str, file: File, group: int | None) -> None:
    target = f"{root}/{path}"
    if "/" in path:
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    with open(target, "xb") as opened:
        opened.write(file.content)
        os.fchmod(opened.fileno(), file.mode | (0o440 if group is not None else 0))
        if (group is not None or file.owner is not None) and os.geteuid() == 0:
            owner = -1 if file.owner is None else file.owner
            os.fchown(opened.fileno(), owner, -1 if group is None else group)


def make_empty_dir(directory: Path, *, group: int | None = None) -> None:
    """A directory that every user of the pod may write to, kept over restarts of containers."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o777 if group is None else 0o2777)
    if group is not None and os.geteuid() == 0:
        os.chown(directory, -1, group)


def sub_path(volume: Path, path: str, *, create: bool) -> Path:
    """The file or directory at `path` below the volume, without links. Raises ConfigError for one outside.

    Containers of the pod may write to the volume while this looks, so what is missing is made below descriptors of
    directories, never by a path, in which somebody may have put a link meanwhile.
    """
    if ".." in PurePosixPath(path).parts or path.startswith("/"):
        raise ConfigError(f"subPath {path!r}: must be relative and without '..'")
    root = volume.resolve()
    target = (root / path).resolve()
    if root != target and root not in target.parents:
        raise ConfigError(f"subPath {path!r} leaves its volume")
    if create and not target.exists():
        try:
            _make_directories(root, target.relative_to(root).parts)
        except OSError as error:
            raise ConfigError(f"subPath {path!r}: {error.strerror}") from error
    if not target.exists():
        raise ConfigError(f"subPath {path!r} does not exist in its volume")
    return target


def _make_directories(root: Path, names: Sequence[str]) -> None:
    """Every user of the pod may write to those that are made. Raises OSError, also for a link on the way."""
    at = os.open(root, os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            made = True
            try:
                os.mkdir(name, dir_fd=at)
            except FileExistsError:
                made = False
            below = os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = below
            if made:
                os.fchmod(at, 0o777)
    finally:
        os.close(at)


def _same(current: Path, files: Mapping[str, File]) -> bool:
    present = {str(path.relative_to(current)) for path in current.rglob("*") if path.is_file()}
    return present == set(files) and all(
        (current / path).read_bytes() == file.content for path, file in files.items()
    )
