"""Applying layers to a directory without ever leaving it.

Every name in a layer is chosen by a stranger. A parent directory is therefore resolved component by component,
links inside the tree being followed as if the tree were `/` (merged-usr images need that), and the last
component is never followed. Nobody else writes to the tree meanwhile, so what was resolved stays true.

- `..` in a name is refused; absolute names are taken relative to the tree.
- Device nodes are skipped: the sandbox makes its own `/dev`, and a 0/0 character device would be a whiteout to
  overlayfs. Sockets do not occur in archives; FIFOs are made.
- Ownership and set-uid bits are kept when we may set them. Otherwise owners are recorded (`owners`) and set-uid
  bits dropped: they would name the wrong user.
- Extended attributes: `user.*` and file capabilities. `trusted.*` and `user.overlay.*` steer overlayfs.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import tarfile
from pathlib import Path
from typing import IO

from serving.local.images.content import remove_tree
from serving.local.images.errors import refused
from serving.local.images.limits import Limits

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
_META = ".wh..wh."
_XATTR = "SCHILY.xattr."
_CHUNK = 1 << 20
_MAX_LINKS = 40
_MAX_ID = 2**32 - 2
_MAX_TIME = 2**33
_SET_ID = stat.S_ISUID | stat.S_ISGID


class TreeWriter:
    """Use: for each layer, bottom first, `begin_layer` and `add` for each member; then `finish`."""

    def __init__(self, root: Path, *, limits: Limits, own: bool, what: str) -> None:
        self.root = str(root)
        self.entries = 0
        self.bytes = 0
        self.owners: dict[str, tuple[int, int]] = {}
        """Owners other than 0:0 that could not be applied, by path."""
        self.skipped_devices = 0
        self._limits = limits
        self._own = own
        self._what = what
        self._real: dict[str, str] = {}
        self._directories: dict[str, tuple[int, float]] = {}
        self._fresh: set[str] = set()

    def begin_layer(self) -> None:
        self._fresh.clear()

    def add(self, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        """Apply one member. Raises ImageError when it is hostile or impossible."""
        self.entries += 1
        if self.entries > self._limits.entries:
            raise self._refuse(f"more than {self._limits.entries} files")
        name = self._clean(member.name)
        if not name:
            if member.isdir():
                self._directories[""] = (member.mode & 0o7777, member.mtime)
            return
        parent, _, base = name.rpartition("/")
        if base.startswith(WHITEOUT):
            self._whiteout(parent, base)
            return
        if member.ischr() or member.isblk():
            self.skipped_devices += 1
            return
        real = posixpath.join(self._directory(parent), base)
        self._check_path(real)
        self._create(member, content, real)
        self._mark_fresh(real)

    def finish(self) -> None:
        """Set what had to wait until nothing more is written: modes and times of directories. What was recorded
        is looked up on a walk that follows no link: a recorded path may since lead through one."""
        owners: dict[str, tuple[int, int]] = {}
        for directory, names, files in os.walk(self.root, topdown=False):
            real = directory[len(self.root) + 1 :]
            for name in (*names, *files):
                path = posixpath.join(real, name)
                if path in self.owners:
                    owners[path] = self.owners[path]
            mode, mtime = self._directories.get(real, (0o755, 0.0))
            os.chmod(directory, mode)
            os.utime(directory, (_clamp(mtime), _clamp(mtime)))
        self.owners = owners

    # names

    def _refuse(self, why: str) -> Exception:
        return refused(f"{self._what}: refusing to unpack: {why}")

    def _path(self, real: str) -> str:
        return f"{self.root}/{real}" if real else self.root

    def _clean(self, name: str) -> str:
        """The name relative to the tree, `` for the tree itself."""
        if "\x00" in name:
            raise self._refuse(f"{name!r} contains a NUL")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self._refuse(f"{name!r} points outside the image")
        if len(parts) > self._limits.depth:
            raise self._refuse(f"{name[:64]!r}… is nested deeper than {self._limits.depth} directories")
        if any(len(os.fsencode(part)) > self._limits.name_bytes for part in parts):
            raise self._refuse(f"{name[:64]!r}… has a component longer than {self._limits.name_bytes} bytes")
        return "/".join(parts)

    def _check_path(self, real: str) -> None:
        if len(os.fsencode(real)) > self._limits.path_bytes or real.count("/") >= self._limits.depth:
            raise self._refuse(f"{real[:64]!r}… is longer or deeper than allowed")

    def _directory(self, name: str) -> str:
        """The real path, in the tree, of directory `name`; made where it does not exist."""
        if not name:
            return ""
        real = self._real.get(name)
        if real is None:
            real = self._real[name] = self._resolve(name)
        return real

    def _resolve(self, name: str) -> str:
        pending = name.split("/")
        current: list[str] = []
        links = 0
        while pending:
            part = pending.pop(0)
            if part in ("", "."):
                continue
            if part == "..":  # only from a link's target; the tree is its own root
                del current[-1:]
                continue
            real = "/".join((*current, part))
            self._check_path(real)
            mode = self._mode(real)
            if mode is None:
                self._make_directory(real, 0o755, 0)
                self._mark_fresh(real)
            elif stat.S_ISLNK(mode):
                links += 1
                if links > _MAX_LINKS:
                    raise self._refuse(f"{name!r} goes through too many links")
                target = os.readlink(self._path(real))
                current = [] if target.startswith("/") else current
                pending = target.split("/") + pending
                continue
            elif not stat.S_ISDIR(mode):
                raise self._refuse(f"{name!r} goes through {real!r}, which is not a directory")
            current.append(part)
        return "/".join(current)

    def _mode(self, real: str) -> int | None:
        try:
            return os.lstat(self._path(real)).st_mode
        except FileNotFoundError:
            return None

    def _mark_fresh(self, real: str) -> None:
        """Remember that this layer made it, so that this layer's opaque markers spare it."""
        while real and real not in self._fresh:
            self._fresh.add(real)
            real = real.rpartition("/")[0]

    # entries

    def _create(self, member: tarfile.TarInfo, content: IO[bytes] | None, real: str) -> None:
        if member.isdir():
            self._add_directory(member, real)
            return
        target = self._hard_link_target(member) if member.islnk() else ""
        if member.islnk() and target == real:
            return
        self._remove(real)
        path = self._path(real)
        if member.islnk():
            self._hard_link(target, path, member.name)
            return
        if member.issym():
            if not member.linkname or "\x00" in member.linkname or len(os.fsencode(member.linkname)) > 4095:
                raise self._refuse(f"link {member.name!r} has an impossible target")
            os.symlink(member.linkname, path)
        elif member.isfifo():
            os.mkfifo(path, 0o600)
        elif member.isreg() and content is not None:
            self._write(member, content, path)
        else:
            raise self._refuse(f"{member.name!r} has the unknown type {member.type!r}")
        self._decorate(member, real)

    def _add_directory(self, member: tarfile.TarInfo, real: str) -> None:
        mode = self._mode(real)
        if mode is not None and not stat.S_ISDIR(mode):
            self._remove(real)
            mode = None
        if mode is None:
            self._make_directory(real, member.mode, member.mtime)
        self._directories[real] = (self._allowed_mode(member.mode), member.mtime)
        self._set_owner(member, real)
        self._set_attributes(member, self._path(real))

    def _make_directory(self, real: str, mode: int, mtime: float) -> None:
        os.mkdir(self._path(real), 0o700)
        self._directories[real] = (self._allowed_mode(mode), mtime)

    def _hard_link_target(self, member: tarfile.TarInfo) -> str:
        parent, _, base = self._clean(member.linkname).rpartition("/")
        return posixpath.join(self._directory(parent), base)

    def _hard_link(self, target: str, path: str, name: str) -> None:
        mode = self._mode(target) if target else None
        if mode is None or stat.S_ISDIR(mode):
            raise self._refuse(f"hard link {name!r} to {target!r}, which is no file of the image")
        os.link(self._path(target), path, follow_symlinks=False)

    def _write(self, member: tarfile.TarInfo, content: IO[bytes], path: str) -> None:
        self.bytes += member.size
        if self.bytes > self._limits.unpacked_bytes:
            raise self._refuse(f"more than {self._limits.unpacked_bytes} bytes unpacked")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb", buffering=0) as file:
            while chunk := content.read(_CHUNK):
                file.write(chunk)

    def _decorate(self, member: tarfile.TarInfo, real: str) -> None:
        path = self._path(real)
        self._set_owner(member, real)
        if not member.issym():
            os.chmod(path, self._allowed_mode(member.mode))
            self._set_attributes(member, path)
        os.utime(path, (_clamp(member.mtime), _clamp(member.mtime)), follow_symlinks=False)

    def _allowed_mode(self, mode: int) -> int:
        return mode & (0o7777 if self._own else 0o7777 & ~_SET_ID)

    def _set_owner(self, member: tarfile.TarInfo, real: str) -> None:
        uid, gid = member.uid, member.gid
        if not (0 <= uid <= _MAX_ID and 0 <= gid <= _MAX_ID):
            raise self._refuse(f"{member.name!r} has the impossible owner {uid}:{gid}")
        if self._own:
            os.chown(self._path(real), uid, gid, follow_symlinks=False)
        elif (uid, gid) != (0, 0):
            self.owners[real] = (uid, gid)

    def _set_attributes(self, member: tarfile.TarInfo, path: str) -> None:
        for key, value in member.pax_headers.items():
            name = key.removeprefix(_XATTR)
            if name == key or not self._wanted_attribute(name):
                continue
            try:
                os.setxattr(path, name, value.encode("utf-8", "surrogateescape"), follow_symlinks=False)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.ENOSPC, errno.E2BIG, errno.ERANGE):
                    raise

    def _wanted_attribute(self, name: str) -> bool:
        if name == "security.capability":
            return self._own
        return name.startswith("user.") and not name.startswith("user.overlay.")

    # removal

    def _whiteout(self, parent: str, base: str) -> None:
        if base == OPAQUE:
            self._empty(self._directory(parent))
            return
        if base.startswith(_META):  # bookkeeping of aufs
            return
        hidden = base.removeprefix(WHITEOUT)
        if hidden in ("", ".", ".."):
            raise self._refuse(f"whiteout {base!r} hides no name")
        real = posixpath.join(self._directory(parent), hidden)
        if real not in self._fresh:
            self._remove(real)

    def _empty(self, directory: str) -> None:
        """Remove what lower layers put into the directory, at any depth."""
        for entry in os.listdir(self._path(directory)):
            real = posixpath.join(directory, entry)
            if real not in self._fresh:
                self._remove(real)
            elif (mode := self._mode(real)) is not None and stat.S_ISDIR(mode):
                self._empty(real)

    def _remove(self, real: str) -> None:
        mode = self._mode(real)
        if mode is None:
            return
        if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            self._real.clear()  # names that were resolved through it
        self._fresh.discard(real)
        remove_tree(Path(self._path(real)))


def _clamp(mtime: float) -> float:
    return min(max(mtime, 0), _MAX_TIME)
