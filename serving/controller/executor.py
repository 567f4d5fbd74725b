"""Carries writes out, in order."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from serving.controller.writes import Create, Delete, Patch, Write
from serving.kube.client import KubeClient
from serving.kube.errors import AlreadyExists, NotFound

log = logging.getLogger(__name__)


async def carry_out(client: KubeClient, writes: Iterable[Write]) -> None:
    """Apply all writes or raise the first error; the caller runs again, so what was done is not undone.

    An object that already exists, or is already gone, is what a stale cache looks like: the informer will tell.
    Several patches of one object in a row carry its version on.
    """
    versions: dict[tuple[str, str, str], str] = {}
    for write in writes:
        match write:
            case Create():
                try:
                    await client.create(write.resource, write.body)
                except AlreadyExists:
                    log.debug("%s %s exists", write.resource.kind, write.body["metadata"]["name"])
            case Patch():
                key = (write.resource.plural, write.namespace, write.name)
                if key in versions and write.resource_version:
                    write = msgspec.structs.replace(write, resource_version=versions[key])
                try:
                    answer = await client.patch(
                        write.resource,
                        write.name,
                        write.body(),
                        write.namespace,
                        subresource=write.subresource,
                    )
                except NotFound:
                    log.debug("%s %s is gone", write.resource.kind, write.name)
                else:
                    versions[key] = answer["metadata"]["resourceVersion"]
            case Delete():
                try:
                    await client.delete(
                        write.resource,
                        write.name,
                        write.namespace,
                        uid=write.uid,
                        propagation=write.propagation,
                    )
                except NotFound:
                    log.debug("%s %s is gone", write.resource.kind, write.name)
