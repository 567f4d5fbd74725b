"""Carries writes out, in order."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from serving.api.meta import ObjectMeta
from serving.api.resources import SERVICES, Resource
from serving.controller.events import Recorder
from serving.controller.writes import Create, Delete, Patch, Write
from serving.kube.client import KubeClient
from serving.kube.errors import AlreadyExists, ApiError, NotFound

log = logging.getLogger(__name__)

Subject: TypeAlias = tuple[Resource, ObjectMeta]
"""The object that is reconciled, for the Events of what is created for it."""


async def carry_out(
    client: KubeClient,
    writes: Iterable[Write],
    *,
    about: Subject | None = None,
    events: Recorder | None = None,
) -> None:
    """Apply all writes or raise the first error; the caller runs again, so what was done is not undone.

    An object that already exists, or is already gone, is what a stale cache looks like: the informer will tell.
    Several patches of one object in a row carry its version on.
    """
    versions: dict[tuple[str, str, str], str] = {}
    for write in writes:
        match write:
            case Create():
                await _create(client, write, about, events)
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


async def _create(client: KubeClient, write: Create, about: Subject | None, events: Recorder | None) -> None:
    name = write.body["metadata"]["name"]
    what = "placeholder service" if write.resource is SERVICES else write.resource.kind
    try:
        await client.create(write.resource, write.body)
    except AlreadyExists:
        log.debug("%s %s exists", write.resource.kind, name)
    except ApiError as error:
        if about is not None and events is not None and not error.transient:
            message = f'Failed to create {what} "{name}": {error.message}'
            events.warning(*about, reason="CreationFailed", message=message)
        raise
    else:
        if about is not None and events is not None:
            events.normal(*about, reason="Created", message=f'Created {what} "{name}"')
