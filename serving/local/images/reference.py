"""What an image reference means. Pure.

Registry references follow the rules of Knative's webhook (go-containerregistry, weak validation), so that a
reference which is accepted or refused there is accepted or refused here with the same text. Local sources
(`oci:`, `docker-archive:`, `dir:`) are ours. Every form can carry a digest, because a Revision pins what it
resolved: `dir:/srv/app@sha256:…` is as valid as `index.docker.io/library/hello@sha256:…`.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

import msgspec

Transport: TypeAlias = Literal["registry", "oci", "docker-archive", "dir"]

DEFAULT_REGISTRY = "index.docker.io"
DEFAULT_TAG = "latest"

_SOURCES: dict[str, Transport] = {"oci": "oci", "docker-archive": "docker-archive", "dir": "dir"}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DIGEST_SUFFIX = re.compile(r"@(sha256:[0-9a-f]{64})\Z")
_TAG = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_REPOSITORY = re.compile(r"[a-z0-9_./-]{2,255}")
_REGISTRY = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class InvalidReferenceError(ValueError):
    """The text is no image reference. `str(error)` is what Knative prints after `error: `."""


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    """As the user wrote it."""
    transport: Transport = "registry"
    registry: str = ""
    repository: str = ""
    """With `library/` where Docker Hub implies it."""
    tag: str = ""
    """Of a registry reference without digest never empty. Of `oci:` the layout's tag, of `docker-archive:` the
    wanted reference; both may be empty when there is only one image."""
    digest: str = ""
    path: str = ""
    """Of a local source."""

    @property
    def repository_name(self) -> str:
        """`registry/repository`, or the source without its digest."""
        if self.transport == "registry":
            return f"{self.registry}/{self.repository}"
        return f"{self.transport}:{self.path}" + (f":{self.tag}" if self.tag else "")

    @property
    def name(self) -> str:
        """Canonical: two texts that mean the same have the same name."""
        if self.digest:
            return f"{self.repository_name}@{self.digest}"
        return f"{self.repository_name}:{self.tag}" if self.transport == "registry" else self.repository_name

    def pinned(self, digest: str) -> str:
        """The digest reference of this repository or source."""
        return f"{self.repository_name}@{digest}"


def parse_reference(text: str) -> Reference:
    """Parse any reference that the store understands. Raises InvalidReferenceError."""
    if _CONTROL.search(text):
        raise InvalidReferenceError(f"could not parse reference: {text!r}")
    prefix, _, rest = text.partition(":")
    transport = _SOURCES.get(prefix)
    return _parse_registry(text) if transport is None else _parse_source(text, transport, rest)


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def _parse_source(text: str, transport: Transport, rest: str) -> Reference:
    found = _DIGEST_SUFFIX.search(rest)
    digest = found.group(1) if found else ""
    if found:
        rest = rest[: found.start()]
    path, tag = (rest, "") if transport == "dir" else _split_source(rest)
    if not path:
        raise InvalidReferenceError(f"could not parse reference: {text}: no path after {transport}:")
    if len(path) > 4096:
        raise InvalidReferenceError(f"could not parse reference: the path after {transport}: is too long")
    return Reference(text=text, transport=transport, path=path, tag=tag, digest=digest)


def _split_source(rest: str) -> tuple[str, str]:
    path, _, tag = rest.partition(":")
    return path, tag


def _parse_registry(text: str) -> Reference:
    base, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _unparsable(text)
    base, tag = _split_tag(base)
    if tag is not None and not _TAG.fullmatch(tag):
        raise _unparsable(text)
    registry, repository = _split_registry(base)
    parts = repository.split("/")
    if not _REPOSITORY.fullmatch(repository) or any(part in ("", ".", "..") for part in parts):
        raise _unparsable(text)
    if not _REGISTRY.fullmatch(registry):
        raise _unparsable(text)
    if registry == DEFAULT_REGISTRY and len(parts) == 1:
        repository = f"library/{repository}"
    if digest:
        return Reference(text=text, registry=registry, repository=repository, digest=digest)
    return Reference(text=text, registry=registry, repository=repository, tag=tag or DEFAULT_TAG)


def _split_tag(base: str) -> tuple[str, str | None]:
    """A colon before the last slash belongs to the registry's port, not to a tag."""
    head, colon, tail = base.rpartition(":")
    if not colon or "/" in tail:
        return base, None
    return head, tail


def _split_registry(base: str) -> tuple[str, str]:
    """The first part is a registry only if it looks like a host: `team/app` is on Docker Hub."""
    first, slash, rest = base.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return (DEFAULT_REGISTRY if first == "docker.io" else first), rest
    return DEFAULT_REGISTRY, base


def _unparsable(text: str) -> InvalidReferenceError:
    return InvalidReferenceError(f"could not parse reference: {text}")
