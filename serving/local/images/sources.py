"""Reading OCI layouts and `docker save` archives into the store. Blocking.

Everything is copied in and verified, so that a source may change or go away while a pod runs from it.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import IO

import msgspec

from serving.local.images.content import ContentStore
from serving.local.images.errors import pull_failed, refused
from serving.local.images.manifest import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    TITLE,
    Descriptor,
    Index,
    Manifest,
    choose,
    parse_configuration,
    parse_document,
)
from serving.local.images.reference import InvalidReferenceError, Reference, parse_reference
from serving.local.images.unpack import BROKEN, open_compressed

_CONTAINERD_NAME = "io.containerd.image.name"


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    digest: str
    """Of the manifest for this architecture."""
    resolved: str
    """Of what the source names: an index or the manifest itself."""


class _Saved(msgspec.Struct, frozen=True, rename="pascal"):
    config: str
    layers: tuple[str, ...]
    repo_tags: tuple[str, ...] | None = None


def file_fingerprint(path: Path) -> str:
    """Changes whenever the file does."""
    status = path.stat()
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


# OCI layouts


def layout_digest(reference: Reference, content: ContentStore) -> str:
    """What `oci:DIR[:TAG]` names at this moment. Raises ImageError."""
    return _layout_entry(reference, content).digest


def import_layout(content: ContentStore, reference: Reference, *, architecture: str) -> Imported:
    """Copy one image of a layout. Raises ImageError."""
    what = reference.text
    entry = _layout_entry(reference, content)
    digest = entry.digest
    for _ in range(3):  # an index may name an index, once; more is no image
        document = _layout_document(content, reference, digest)
        if isinstance(document, Manifest):
            break
        digest = choose(document, architecture=architecture, what=what).digest
    else:
        raise refused(f"{what}: indexes are nested too deeply")
    sizes = {layer.digest: layer.size for layer in (document.config, *document.layers)}
    for blob, size in sizes.items():
        _copy_layout_blob(content, reference, blob, size=size)
    content.put_image(digest, what=what)
    content.set_alias(entry.digest, digest)
    return Imported(digest=digest, resolved=entry.digest)


def _layout_entry(reference: Reference, content: ContentStore) -> Descriptor:
    path = Path(reference.path) / "index.json"
    try:
        with path.open("rb") as file:
            raw = file.read(content.limits.document_bytes + 1)
    except OSError as error:
        raise pull_failed(f"{reference.text}: {path} cannot be read: {error.strerror}") from error
    index = parse_document(raw, what=reference.text, limits=content.limits)
    if not isinstance(index, Index):
        raise refused(f"{reference.text}: {path} is no index of an OCI layout")
    return _pick(index, reference)


def _pick(index: Index, reference: Reference) -> Descriptor:
    entries = index.manifests
    if reference.digest:
        found = [entry for entry in entries if entry.digest == reference.digest]
        if not found:
            raise pull_failed(f"{reference.text}: manifest unknown: the layout has no {reference.digest}")
        return found[0]
    if reference.tag:
        entries = tuple(entry for entry in entries if reference.tag in _entry_names(entry))
        if not entries:
            raise pull_failed(f'{reference.text}: manifest unknown: the layout has no tag "{reference.tag}"')
    if len({entry.digest for entry in entries}) != 1:
        names = sorted(name for entry in entries for name in _entry_names(entry))
        raise refused(f"{reference.text}: the layout has {len(entries)} images, name one: {', '.join(names)}")
    return entries[0]


def _entry_names(entry: Descriptor) -> set[str]:
    annotations = entry.annotations or {}
    full = annotations.get(_CONTAINERD_NAME, "")
    return {name for name in (annotations.get(TITLE, ""), full, full.rpartition(":")[2]) if name}


def _layout_blob(reference: Reference, digest: str) -> Path:
    return Path(reference.path) / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _layout_document(content: ContentStore, reference: Reference, digest: str) -> Manifest | Index:
    _copy_layout_blob(content, reference, digest, size=None)
    raw = content.read_blob(digest, limit=content.limits.document_bytes)
    return parse_document(raw, what=reference.text, limits=content.limits)


def _copy_layout_blob(content: ContentStore, reference: Reference, digest: str, *, size: int | None) -> None:
    if content.has_blob(digest):
        return
    path = _layout_blob(reference, digest)
    try:
        with path.open("rb") as file:
            content.put_stream(file, digest=digest, size=size, what=reference.text)
    except OSError as error:
        raise pull_failed(f"{reference.text}: {path} cannot be read: {error.strerror}") from error


# docker save


def import_archive(content: ContentStore, reference: Reference) -> Imported:
    """Copy one image of a `docker save` archive (plain, gzip or zstd). The archive has no manifest digest of its
    own, so one is made of what it holds. Raises ImageError."""
    try:
        with Path(reference.path).open("rb") as packed, content.scratch() as scratch:
            plain = open_compressed(packed)
            if plain is packed:
                return _import_seekable(content, packed, reference)
            # Members are looked up by name, so a compressed archive is unpacked first.
            with (scratch / "archive").open("w+b") as file:
                _expand(plain, file, limit=content.limits.unpacked_bytes, what=reference.text)
                return _import_seekable(content, file, reference)
    except (*BROKEN, msgspec.MsgspecError, KeyError) as error:
        raise refused(f"{reference.text}: not a docker archive: {error}") from error
    except OSError as error:
        raise pull_failed(f"{reference.text}: cannot be read: {error.strerror or error}") from error


def _expand(plain: IO[bytes], file: IO[bytes], *, limit: int, what: str) -> None:
    while chunk := plain.read(1 << 20):
        if file.tell() + len(chunk) > limit:
            raise refused(f"{what}: the archive unpacks to more than {limit} bytes")
        file.write(chunk)
    file.seek(0)


def _import_seekable(content: ContentStore, file: IO[bytes], reference: Reference) -> Imported:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        return _import_saved(content, archive, reference)


def _import_saved(content: ContentStore, archive: tarfile.TarFile, reference: Reference) -> Imported:
    what, limits = reference.text, content.limits
    raw = _member(archive, "manifest.json", what).read(limits.document_bytes)
    saved = _pick_saved(msgspec.json.decode(raw, type=tuple[_Saved, ...]), reference)
    config = _member(archive, saved.config, what).read(limits.config_bytes)
    if len(saved.layers) > limits.layers:
        raise refused(f"{what}: {len(saved.layers)} layers, at most {limits.layers} are allowed")
    layers = tuple(_import_layer(content, archive, name, what) for name in saved.layers)
    parse_configuration(config, what=what)
    config_descriptor = Descriptor(media_type=OCI_CONFIG, digest=content.put_bytes(config), size=len(config))
    manifest = Manifest(media_type=OCI_MANIFEST, config=config_descriptor, layers=layers)
    digest = content.put_bytes(msgspec.json.encode(manifest, order="deterministic"))
    content.put_image(digest, what=what)
    return Imported(digest=digest, resolved=digest)


def _pick_saved(images: tuple[_Saved, ...], reference: Reference) -> _Saved:
    tags = [tag for image in images for tag in image.repo_tags or ()]
    if reference.tag:
        wanted = _canonical(reference.tag)
        images = tuple(image for image in images if wanted in map(_canonical, image.repo_tags or ()))
        if not images:
            raise pull_failed(f'{reference.text}: the archive has no "{reference.tag}", it has {", ".join(tags)}')
    if len(images) != 1:
        raise refused(f"{reference.text}: the archive has {len(images)} images, name one: {', '.join(tags)}")
    return images[0]


def _canonical(text: str) -> str:
    try:
        return parse_reference(text).name
    except InvalidReferenceError:
        return text


def _import_layer(content: ContentStore, archive: tarfile.TarFile, name: str, what: str) -> Descriptor:
    with _member(archive, name, what) as file:
        digest = content.put_stream(file, what=what)
    return Descriptor(media_type=OCI_LAYER, digest=digest, size=os.stat(content.blob_path(digest)).st_size)


def _member(archive: tarfile.TarFile, name: str, what: str) -> IO[bytes]:
    file = archive.extractfile(name)
    if file is None:
        raise refused(f"{what}: {name} is no file of the archive")
    return file
