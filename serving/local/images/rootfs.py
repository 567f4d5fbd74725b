"""Converting an image, once, into the root filesystem that sandboxes use. Blocking.

`images/<hex>/erofs/` holds `rootfs.erofs`, `images/<hex>/directory/` holds `tree/`; each with `rootfs.json` and,
where owners could not be applied, `owners.json`. The directory appears by one rename when it is complete. It is a
wrapper because an unprivileged rename of a tree whose own mode denies writing is refused.
"""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event

import msgspec

from serving.local.images.content import ContentStore, read_json, remove_tree
from serving.local.images.erofs import boot_id, make_erofs
from serving.local.images.errors import pull_failed
from serving.local.images.protocol import Rootfs
from serving.local.images.records import Form, ImageRecord, RootfsRecord
from serving.local.images.unpack import unpack

_RECORD = "rootfs.json"
_OWNERS = "owners.json"
_FILES = {"erofs": "rootfs.erofs", "directory": "tree"}
_BOTH: tuple[Form, Form] = ("erofs", "directory")


def find_rootfs(content: ContentStore, digest: str, *, wanted: Form) -> Rootfs | None:
    """What is converted already; None when the wanted form is not. A damaged one is removed."""
    base = content.image_dir(digest)
    if not _usable(base / wanted, wanted):
        return None
    found = {form: base / form / _FILES[form] for form in _BOTH if form == wanted or _usable(base / form, form)}
    return Rootfs(erofs=found.get("erofs"), directory=found.get("directory"))


def _usable(directory: Path, form: Form) -> bool:
    record = read_json(directory / _RECORD, RootfsRecord)
    if record is None:
        return False
    path = directory / _FILES[form]
    if form == "erofs":
        return path.is_file() and path.stat().st_size == record.size_bytes
    if record.boot_id == boot_id():
        return path.is_dir()
    # A power loss may have emptied files that were renamed but never written out.
    entries, size = measure(path)
    return (entries, size) == (record.entries, record.size_bytes)


def convert(content: ContentStore, image: ImageRecord, *, form: Form, own: bool, what: str, stop: Event) -> Rootfs:
    """Unpack and publish. The caller holds the image's lock exclusively and all layers are present.
    Raises ImageError, Cancelled."""
    layers = [
        (content.blob_path(layer.digest), diff_id)
        for layer, diff_id in zip(image.layers, image.diff_ids, strict=True)
    ]
    with content.scratch() as scratch:
        wrapper, tree = scratch / form, scratch / form / "tree"
        wrapper.mkdir(mode=0o755)
        tree.mkdir(mode=0o755)
        try:
            written = unpack(layers, tree, limits=content.limits, own=own, what=what, stop=stop)
            entries, size = measure(tree)
            if form == "erofs":
                size = _pack(tree, wrapper / _FILES["erofs"], what)
        except FileNotFoundError as error:
            raise pull_failed(f"{what}: {error.filename} vanished from the image store") from error
        if written.owners:
            (wrapper / _OWNERS).write_bytes(msgspec.json.encode(written.owners))
        record = RootfsRecord(form=form, entries=entries, size_bytes=size, boot_id=boot_id())
        content.write_json(wrapper / _RECORD, record)
        target = content.image_dir(image.digest) / form
        remove_tree(target)
        wrapper.rename(target)
    found = find_rootfs(content, image.digest, wanted=form)
    if found is None:
        raise pull_failed(f"{what}: the converted root filesystem {target} is damaged")
    return found


def _pack(tree: Path, image: Path, what: str) -> int:
    make_erofs(tree, image, what=what)
    remove_tree(tree)
    return image.stat().st_size


def measure(tree: Path) -> tuple[int, int]:
    """Entries below the tree and bytes of its regular files."""
    entries = size = 0
    for directory, names, files in os.walk(tree):
        entries += len(names) + len(files)
        for name in files:
            status = os.lstat(os.path.join(directory, name))
            size += status.st_size
    return entries, size


def disk_usage(content: ContentStore, digest: str) -> int:
    """Bytes of all converted forms."""
    base = content.image_dir(digest)
    records = (read_json(base / form / _RECORD, RootfsRecord) for form in _BOTH)
    return sum(record.size_bytes for record in records if record is not None)


def remove_rootfs(content: ContentStore, digest: str) -> None:
    """The caller holds the image's lock exclusively."""
    for form in _BOTH:
        with content.scratch() as scratch:
            source = content.image_dir(digest) / form
            if source.exists():
                source.rename(scratch / form)
