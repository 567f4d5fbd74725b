"""Everything that Envoy should have, as named and versioned bytes. Pure.

A version is a hash of the content and of nothing else: the same configuration has the same version in every
process, so a restarted agent sends nothing again.

A route configuration is held as its virtual hosts, one item each, and put together from their bytes: fields of a
protobuf message may be concatenated. So one route's change costs one serialisation, and one virtual host can be
left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

CLUSTER_TYPE: Final = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINT_TYPE: Final = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER_TYPE: Final = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTE_TYPE: Final = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"

_VIRTUAL_HOSTS_TAG: Final = bytes([2 << 3 | 2])
"""Field 2, length-delimited: RouteConfiguration.virtual_hosts."""


class Item(msgspec.Struct, frozen=True):
    """`refs`: clusters that the item names. `source`: what it was made from, for whoever asks what Envoy has."""

    data: bytes
    version: str
    refs: frozenset[str] = frozenset()
    source: object = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """`virtual_hosts`: by route configuration, then by name; `bases`: the rest of each route configuration.
    `fixed_clusters` have no endpoints by EDS."""

    clusters: dict[str, Item] = {}
    endpoints: dict[str, Item] = {}
    listeners: dict[str, Item] = {}
    virtual_hosts: dict[str, dict[str, Item]] = {}
    bases: dict[str, bytes] = {}
    fixed_clusters: dict[str, Item] = {}


def item(message: Any, *, refs: Iterable[str] = (), source: object = None) -> Item:
    """A protobuf message with its version."""
    data = message.SerializeToString(deterministic=True)
    return Item(data, version_of(data), frozenset(refs), source)


def version_of(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def route_configuration(base: bytes, hosts: Mapping[str, Item]) -> bytes:
    """`base` without virtual hosts, then the hosts in order of their names."""
    parts = [base]
    for name in sorted(hosts):
        data = hosts[name].data
        parts += (_VIRTUAL_HOSTS_TAG, _varint(len(data)), data)
    return b"".join(parts)


def consistent(snapshot: Snapshot) -> list[str]:
    """Every dangling reference, in words: a route to no cluster, endpoints of no cluster, or the reverse."""
    problems = [
        f"virtual host {name!r} of {config!r} names the unknown cluster {ref!r}"
        for config, hosts in snapshot.virtual_hosts.items()
        for name, host in hosts.items()
        for ref in sorted(host.refs)
        if ref not in snapshot.clusters
    ]
    problems += [
        f"cluster {name!r} has no endpoints"
        for name in sorted(snapshot.clusters.keys() - snapshot.endpoints.keys())
    ]
    problems += [
        f"endpoints {name!r} belong to no cluster"
        for name in sorted(snapshot.endpoints.keys() - snapshot.clusters.keys())
    ]
    return problems


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
