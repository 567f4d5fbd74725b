"""Fetches the config maps and secrets that one pod refers to, all at once."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Mapping

from serving.api.meta import JsonObject
from serving.api.resources import CONFIG_MAPS, SECRETS, Resource
from serving.kube.client import KubeClient
from serving.kube.errors import NotFound
from serving.local.node.envvars import KeyedObjects


async def fetch_objects(
    client: KubeClient, namespace: str, *, config_maps: Iterable[str], secrets: Iterable[str]
) -> KeyedObjects:
    """Those that exist. Raises KubeError when the API server cannot answer."""
    maps, secret_names = sorted(config_maps), sorted(secrets)
    found = await asyncio.gather(
        *(_get(client, CONFIG_MAPS, name, namespace) for name in maps),
        *(_get(client, SECRETS, name, namespace) for name in secret_names),
    )
    return KeyedObjects(
        config_maps={name: _config_map(o) for name, o in zip(maps, found, strict=False) if o is not None},
        secrets={
            name: secret_data(o) for name, o in zip(secret_names, found[len(maps) :], strict=True) if o is not None
        },
    )


async def _get(client: KubeClient, resource: Resource, name: str, namespace: str) -> JsonObject | None:
    try:
        return await client.get(resource, name, namespace)
    except NotFound:
        return None


def _config_map(item: JsonObject) -> Mapping[str, bytes]:
    text = {key: str(value).encode() for key, value in (item.get("data") or {}).items()}
    return text | {key: base64.b64decode(value) for key, value in (item.get("binaryData") or {}).items()}


def secret_data(item: JsonObject) -> Mapping[str, bytes]:
    """Decoded `data` of a Secret."""
    return {key: base64.b64decode(value) for key, value in (item.get("data") or {}).items()}
