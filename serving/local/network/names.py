"""Names and subnets of one stack on a machine that may run several. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

POOL = IPv4Network("198.18.0.0/15")
"""The range that RFC 2544 sets apart for device tests: on no network that a machine could be part of."""
SLICE_PREFIX = 20


class NetworkError(Exception):
    """The pod network cannot be set up or used; the message says why and what helps."""


def host_link(instance: str) -> str:
    """The host's end of the way into the pod network. At most 15 characters."""
    return f"nl{instance}"


def is_host_link(name: str) -> bool:
    """Of any stack."""
    return len(name) == 10 and name.startswith("nl") and set(name[2:]) <= set("0123456789abcdef")


def bridge(instance: str) -> str:
    return f"nb{instance}"


def pod_port(address: IPv4Address) -> str:
    """The bridge's port of the pod with this address; names count within one stack's namespace only."""
    return f"p{int(address):08x}"


def check_instance(instance: str) -> None:
    if len(instance) != 8 or any(character not in "0123456789abcdef" for character in instance):
        raise ValueError(f"instance {instance!r}: must be 8 lower-case hexadecimal digits")


class Plan:
    """Addresses inside one slice. The first host address is the pods' gateway, resolver and way to Routes, the
    second their way to the API server; the last two are the ends of the link to the host."""

    def __init__(self, network: IPv4Network) -> None:
        self.network = network
        self.gateway = network[1]
        self.kubernetes = network[2]
        self.link_inside = network[-3]
        self.link_host = network[-2]

    @property
    def reserved(self) -> frozenset[IPv4Address]:
        return frozenset({self.gateway, self.kubernetes, self.link_inside, self.link_host})


def candidates(instance: str, taken: Iterable[IPv4Network]) -> list[IPv4Network]:
    """Free slices, in an order that differs by instance so that two stacks rarely meet."""
    slices = list(POOL.subnets(new_prefix=SLICE_PREFIX))
    start = int(instance, 16) % len(slices)
    used = [network for network in taken if network.overlaps(POOL) and network.prefixlen > 0]
    ordered = slices[start:] + slices[:start]
    return [network for network in ordered if not any(network.overlaps(other) for other in used)]
