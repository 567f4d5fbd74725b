"""Registry credentials out of image pull secrets. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping

import msgspec

from serving.local.images.protocol import Credentials

_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


def credentials_for(reference: str, secrets: Iterable[Mapping[str, bytes]]) -> Credentials | None:
    """The first entry whose registry serves `reference`; malformed secrets are passed over."""
    registry, path = _split(reference)
    for secret in secrets:
        for host, entry in _auths(secret).items():
            server, _, prefix = host.removeprefix("https://").removeprefix("http://").strip("/").partition("/")
            wanted = prefix.removeprefix("v1").removeprefix("v2").strip("/")
            same = server == registry or (server in _DOCKER_HUB and registry in _DOCKER_HUB)
            if same and (not wanted or path == wanted or path.startswith(wanted + "/")):
                found = _credentials(entry)
                if found is not None:
                    return found
    return None


def _split(reference: str) -> tuple[str, str]:
    head, _, rest = reference.partition("/")
    if rest and ("." in head or ":" in head or head == "localhost"):
        return head, rest
    return "docker.io", reference


def _auths(secret: Mapping[str, bytes]) -> Mapping[str, Mapping[str, str]]:
    try:
        if ".dockerconfigjson" in secret:
            config = msgspec.json.decode(secret[".dockerconfigjson"], type=dict[str, object])
            return msgspec.convert(config.get("auths") or {}, dict[str, dict[str, str]])
        if ".dockercfg" in secret:
            return msgspec.json.decode(secret[".dockercfg"], type=dict[str, dict[str, str]])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return {}
    return {}


def _credentials(entry: Mapping[str, str]) -> Credentials | None:
    if entry.get("username"):
        return Credentials(entry["username"], entry.get("password", ""))
    try:
        user, _, password = base64.b64decode(entry.get("auth", "")).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Credentials(user, password) if user else None
