"""URLs of a Route and its tags, from the domain configuration."""

from __future__ import annotations

from collections.abc import Collection

from serving.api import keys
from serving.api.config.store import ApiConfig
from serving.api.hosts import HostError, Hosts, address_url, hosts_of
from serving.api.v1 import Route
from serving.controller.route import Urls


def urls_of(route: Route, config: ApiConfig, *, local_tags: Collection[str] = ()) -> Urls:
    """Never raises: a domain that cannot be made is the Route's `ErrorConfig`.

    `local_tags` are those that their placeholder Services make cluster-local; the empty tag is the Route's host.
    """
    meta = route.metadata

    def hosts(tag: str) -> Hosts:
        labels = meta.labels
        if tag in local_tags:
            labels = {**labels, keys.VISIBILITY: keys.VISIBILITY_CLUSTER_LOCAL}
        return hosts_of(meta, tag, domain=config.domain, network=config.network, labels=labels)

    try:
        own = hosts("")
        tags = {target.tag: hosts(target.tag).url for target in route.spec.traffic if target.tag}
    except HostError as error:
        return Urls(error=str(error))
    return Urls(
        url=own.url,
        local_url=address_url(meta.name, meta.namespace),
        tags=tags,
        cluster_local=own.cluster_local,
    )
