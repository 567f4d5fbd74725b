"""Whether a text is an image reference, as the library that Knative uses decides."""

from __future__ import annotations

import re

_TAG = re.compile(r"[A-Za-z0-9_.-]{1,128}", re.ASCII)
_REPOSITORY = re.compile(r"[a-z0-9_./-]{2,255}", re.ASCII)
_REGISTRY = re.compile(r"(?:\[[^\]\s/?#@%]*\]|(?:[A-Za-z0-9._~!$&'()*+,;=<>\"-]|[^\x00-\x7f])*?)(?::[0-9]*)?")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}", re.ASCII)


def is_image_reference(text: str) -> bool:
    """`[registry/]repository[:tag]`, with or without `@sha256:…`."""
    if _is_tagged(text):
        return True
    base, at, digest = text.partition("@")
    return bool(at) and bool(_DIGEST.fullmatch(digest)) and (_is_tagged(base) or _is_repository(base))


def _is_tagged(text: str) -> bool:
    base, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        return _is_repository(text)
    return (not tag or bool(_TAG.fullmatch(tag))) and _is_repository(base)


def _is_repository(text: str) -> bool:
    first, slash, rest = text.partition("/")
    registry, repository = (first, rest) if slash and ("." in first or ":" in first) else ("", text)
    return bool(_REPOSITORY.fullmatch(repository)) and bool(_REGISTRY.fullmatch(registry))
