"""What pods may open: the resolver, Routes, the API server, ports that were allowed, and the world outside where
there is a way out. Nothing else of this machine, and not each other.

Two mechanisms, both inside the stack's own network namespace, so that nothing of the host is changed:

* routing rules (always): pod → pod through the gateway is a black hole;
* nftables: stateless rules on what arrives from the bridge. A connection is opened by a SYN without ACK, so
  answers to requests pass and nothing has to be tracked.

Where the kernel has no nftables, a routing rule lets pods answer only to ephemeral ports: services of the host on
other ports stay out of reach, and so does the world. `install` tells which of the two it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from serving.local.network import nft
from serving.local.network.names import POOL, Plan

CLOSED: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, where clouds give out the machine's credentials
        "100.100.100.200/32",  # the same of Alibaba Cloud
        "192.0.0.192/32",  # of Oracle Cloud
        "168.63.129.16/32",  # of Azure
        str(POOL),  # other pods' networks
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
"""What pods cannot reach outside although they may reach the world."""

_TABLE = "nodeless"
_IPV4 = nft.IPV4
_EXISTS = 17
_DNS, _HTTP, _HTTPS = 53, 80, 443
_EPHEMERAL = (32768, 60999)
_MAIN_TABLE = 254
_TO_HOST, _TO_PODS, _ANSWERS, _REST = 198, 199, 200, 201
"""Priorities of the routing rules."""


def rules(plan: Plan, host: IPv4Address, allowed_ports: Sequence[int]) -> list[nft.Rule]:
    """What passes from the bridge, whatever else may."""
    passing = [
        nft.opens_nothing(),
        nft.protocol(nft.ICMP),
        nft.to(plan.gateway, nft.UDP, _DNS),
        nft.to(plan.gateway, nft.TCP, _DNS),
        nft.to(plan.gateway, nft.TCP, _HTTP),
        nft.to(plan.kubernetes, nft.TCP, _HTTPS),
        *(nft.to(host, nft.TCP, port) for port in allowed_ports),
    ]
    return [[*rule, *nft.accept()] for rule in passing]


def outside(machine: Sequence[IPv4Address] = ()) -> list[nft.Rule]:
    """After `rules`: the world, but not what is closed, nor the machine's own addresses."""
    closed = (*CLOSED, *(IPv4Network(address) for address in machine))
    return [*([*nft.destination(network), *nft.drop()] for network in closed), nft.accept()]


def install(
    *,
    bridge: str,
    plan: Plan,
    host: IPv4Address,
    allowed_ports: Sequence[int],
    egress: bool = False,
    machine: Sequence[IPv4Address] = (),
) -> str:
    """Filter what comes from `bridge`. Call it in the stack's network namespace. Idempotent: replaces what was
    there. `machine`: addresses that are not the world although there is a way out.

    Returns what is missing compared with the full filter, or an empty string. Raises NetlinkError."""
    with IPRoute() as route:
        _pods_apart(route, bridge, plan, host)
        try:
            _nftables(bridge, rules(plan, host, allowed_ports), rest=outside(machine) if egress else [nft.drop()])
        except (NetlinkError, OSError) as error:
            _answers_only(route, bridge, allowed_ports)
            return (
                "pod network filter: this kernel has no nftables "
                f"({error}); services of this machine on ports {_EPHEMERAL[0]}–{_EPHEMERAL[1]} can be "
                "reached by pods"
            )
    return ""


def _nftables(bridge: str, passing: list[nft.Rule], *, rest: list[nft.Rule]) -> None:
    """`rest`: what holds for the world after `passing`."""
    from_pods = nft.arrives_at(bridge)
    last = {"forward": rest, "input": [nft.drop()]}
    with nft.open_socket() as socket:
        table = nft.Table(socket, _TABLE)
        table.renew()
        for hook, others in last.items():
            table.chain(hook, hook=hook, rules=[[*from_pods, *rule] for rule in [*passing, *others]])


def _pods_apart(route: IPRoute, bridge: str, plan: Plan, host: IPv4Address) -> None:
    _rule(route, priority=_TO_HOST, iifname=bridge, dst=str(host), dst_len=32, table=_MAIN_TABLE)
    network = plan.network
    _rule(
        route,
        priority=_TO_PODS,
        iifname=bridge,
        dst=str(network.network_address),
        dst_len=network.prefixlen,
        action="blackhole",
    )


def _answers_only(route: IPRoute, bridge: str, allowed_ports: Sequence[int]) -> None:
    for start, end in (_EPHEMERAL, *((port, port) for port in allowed_ports)):
        _rule(
            route,
            priority=_ANSWERS,
            iifname=bridge,
            ip_proto=nft.TCP,
            dport_range={"start": start, "end": end},
            table=_MAIN_TABLE,
        )
    _rule(route, priority=_REST, iifname=bridge, action="blackhole")


def _rule(route: IPRoute, **fields: Any) -> None:
    try:
        route.rule("add", family=_IPV4, **fields)
    except NetlinkError as error:
        if error.code != _EXISTS:
            raise
