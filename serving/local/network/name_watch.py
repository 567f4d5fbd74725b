"""Keeps the pods' cluster-local names current: Routes, Services, EndpointSlices, `tag-template`."""

from __future__ import annotations

import asyncio
from typing import Any

from serving.api.resources import ENDPOINT_SLICES, ROUTES, SERVICES
from serving.api.v1 import Route
from serving.kube.client import KubeClient
from serving.kube.configmaps import LiveConfig
from serving.kube.informer import Informer
from serving.local.network.cluster_names import ClusterNames, CoreService, EndpointSlice


async def watch_names(client: KubeClient, names: ClusterNames) -> None:
    """Until cancelled."""
    config = LiveConfig(client, changed=lambda: names.set_tag_template(config.value.network.tag_template.text))
    routes: Informer[Route] = Informer(client, ROUTES, Route)
    services: Informer[CoreService] = Informer(client, SERVICES, CoreService)
    slices: Informer[EndpointSlice] = Informer(client, ENDPOINT_SLICES, EndpointSlice)
    routes.subscribe(lambda key, _old, new: names.set_route(key, new))
    services.subscribe(lambda key, _old, new: names.set_service(key, new))
    slices.subscribe(names.set_slice)
    informers: tuple[Informer[Any], ...] = (config.informer, routes, services, slices)
    async with asyncio.TaskGroup() as group:
        for informer in informers:
            group.create_task(informer.run(), name=f"names: {informer.resource.plural}")
