"""What a pod's /etc/resolv.conf says, by its dnsPolicy and dnsConfig. Pure.

`ClusterFirst` (and its variant for the host's network): cluster-local names by search domains. `Default`: as the
machine resolves names, without search domains. `None`: only what dnsConfig says. In all of them but the last the
pods' own resolver is asked, which forwards what is not cluster-local to the machine's resolvers.
"""

from __future__ import annotations

import msgspec

from serving.api.pod import Pod

_NDOTS = {"ndots": "5"}


class Dns(msgspec.Struct, frozen=True, kw_only=True):
    search: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    """After the resolver of the pod network."""
    options: tuple[str, ...] = ()
    """As in resolv.conf: `name` or `name:value`."""


def dns_of(pod: Pod, cluster_domain: str) -> Dns:
    policy, config = pod.spec.dns_policy, pod.spec.dns_config
    search: list[str] = []
    options: dict[str, str | None] = {}
    if policy in ("ClusterFirst", "ClusterFirstWithHostNet", ""):
        search = [f"{pod.metadata.namespace}.svc.{cluster_domain}", f"svc.{cluster_domain}", cluster_domain]
        options |= _NDOTS
    if config is not None:
        search += config.searches
        options |= {option.name: option.value for option in config.options}
    return Dns(
        search=tuple(dict.fromkeys(search)),
        servers=config.nameservers if config is not None else (),
        options=tuple(name if value in (None, "") else f"{name}:{value}" for name, value in options.items()),
    )
