"""URLs of a Route and its tags, from the domain configuration."""

from __future__ import annotations

from serving.api.config.store import ApiConfig
from serving.api.hosts import HostError, address_url, hosts_of
from serving.api.v1 import Route
from serving.controller.route import Urls


def urls_of(route: Route, config: ApiConfig) -> Urls:
    """Never raises: a domain that cannot be made is the Route's `ErrorConfig`."""
    meta = route.metadata
    try:
        own = hosts_of(meta, "", domain=config.domain, network=config.network)
        tags = {
            target.tag: hosts_of(meta, target.tag, domain=config.domain, network=config.network).url
            for target in route.spec.traffic
            if target.tag
        }
    except HostError as error:
        return Urls(error=str(error))
    return Urls(
        url=own.url,
        local_url=address_url(meta.name, meta.namespace),
        tags=tags,
        cluster_local=own.cluster_local,
    )
