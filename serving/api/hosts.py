"""Which hosts a Route answers on, and the URL that its status shows.

From the Route's metadata, `config-domain` and `config-network`. A Route is cluster-local when it is labelled so,
or when its domain is the cluster's own; then it has no public host. Raises `HostError` with the message of
AllTrafficAssigned=False, reason ErrorConfig.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from serving.api.config.domain import CLUSTER_DOMAIN, LOCAL_DOMAIN, DomainConfig
from serving.api.config.network import NetworkConfig
from serving.api.config.template import Template, TemplateError, Values
from serving.api.keys import VISIBILITY, VISIBILITY_CLUSTER_LOCAL
from serving.api.meta import ObjectMeta
from serving.api.names import domain_name_problems, quote


class HostError(ValueError):
    """A host cannot be made; the text goes into the condition."""


class Hosts(msgspec.Struct, frozen=True):
    """Hosts of one target of a Route: `""` is the default target, others are tags.

    `public` is empty when the target is cluster-local. `local` are the names inside the cluster, shortest first.
    """

    name: str
    """First label(s): the Route's name, or what the tag template made of tag and name."""
    public: str
    local: tuple[str, ...]
    url: str

    @property
    def cluster_local(self) -> bool:
        return not self.public


def hosts_of(
    meta: ObjectMeta,
    tag: str,
    *,
    domain: DomainConfig,
    network: NetworkConfig,
    labels: Mapping[str, str] | None = None,
) -> Hosts:
    """Hosts of a Route's default target (`tag` empty) or of a tag.

    `labels` replaces the Route's own labels where a placeholder Service changes the visibility of one tag.
    Raises HostError.
    """
    route_labels = meta.labels if labels is None else labels
    name = tag_name(meta.name, tag, network=network)
    local = local_hosts(name, meta.namespace)
    full = f"{name}.{meta.namespace}.{LOCAL_DOMAIN}"
    if route_labels.get(VISIBILITY) == VISIBILITY_CLUSTER_LOCAL:
        _check(full)
        return Hosts(name, "", local, f"http://{full}")
    chosen = domain.domain_for(route_labels)
    values: Values = {
        "Name": name,
        "Namespace": meta.namespace,
        "Domain": chosen,
        "Annotations": meta.annotations,
        "Labels": dict(route_labels),
    }
    host = _render(network.domain_template, values, "DomainTemplate")
    _check(host)
    if host.endswith(CLUSTER_DOMAIN):
        return Hosts(name, "", local, f"http://{full}")
    return Hosts(name, host, local, f"{network.default_external_scheme}://{host}")


def tag_name(route: str, tag: str, *, network: NetworkConfig) -> str:
    """The name that replaces the Route's in the hosts of a tag. Raises HostError."""
    return _render(network.tag_template, {"Name": route, "Tag": tag}, "TagTemplate") if tag else route


def local_hosts(name: str, namespace: str) -> tuple[str, ...]:
    """`n.ns`, `n.ns.svc`, `n.ns.svc.cluster.local`."""
    return f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.{LOCAL_DOMAIN}"


def address_url(name: str, namespace: str) -> str:
    """`status.address.url`: always the name inside the cluster."""
    return f"http://{name}.{namespace}.{LOCAL_DOMAIN}"


def _render(template: Template, values: Values, what: str) -> str:
    try:
        return template.render(values)
    except TemplateError as error:
        raise HostError(f"domain name error: error executing the {what}: {error}") from error


def _check(host: str) -> None:
    problems = domain_name_problems(host, field="url")
    if problems:
        raise HostError(f"domain name error: invalid domain name {quote(host)}: {problems[0]}")
