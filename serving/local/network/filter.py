"""What pods may open: nothing towards the host or each other, but the resolver and ports that were allowed.

Two mechanisms, both inside the stack's own network namespace, so that nothing of the host is changed:

* routing rules (always): pod → pod through the gateway is a black hole;
* nftables, by netlink, no `nft` needed: stateless rules on what arrives from the bridge. A connection is opened by
  a SYN without ACK, so answers to requests pass and nothing has to be tracked.

Where the kernel has no nftables, a routing rule lets pods answer only to ephemeral ports: services of the host on
other ports stay out of reach. `install` tells which of the two it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.nftables.expressions import genex, verdict
from pyroute2.nftables.main import NFTables

from serving.local.network.names import Plan

_TABLE = "nodeless"
_IPV4 = 2
_EXISTS = 17
_DROP, _ACCEPT = 0, 1
_REGISTER = 1
_EQUAL, _NOT_EQUAL = 0, 1
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_META_IIFNAME, _META_L4PROTO = 6, 16
_ICMP, _TCP, _UDP = 1, 6, 17
_DESTINATION = (_NETWORK_HEADER, 16, 4)
_PORT = (_TRANSPORT_HEADER, 2, 2)
_TCP_FLAGS = (_TRANSPORT_HEADER, 13, 1)
_SYN, _SYN_ACK = b"\x02", b"\x12"
_INTERFACE_BYTES = 16
_DNS = 53
_EPHEMERAL = (32768, 60999)
_MAIN_TABLE = 254
_TO_HOST, _TO_PODS, _ANSWERS, _REST = 198, 199, 200, 201
"""Priorities of the routing rules."""

Expressions = list[Any]


def _compare(value: bytes, operation: int = _EQUAL) -> Expressions:
    return [genex("cmp", {"sreg": _REGISTER, "op": operation, "data": {"attrs": [("NFTA_DATA_VALUE", value)]}})]


def _meta(key: int, value: bytes) -> Expressions:
    return [genex("meta", {"key": key, "dreg": _REGISTER}), *_compare(value)]


def _payload(field: tuple[int, int, int], value: bytes) -> Expressions:
    return [*_load(field), *_compare(value)]


def _load(field: tuple[int, int, int]) -> Expressions:
    base, offset, length = field
    return [genex("payload", {"dreg": _REGISTER, "base": base, "offset": offset, "len": length})]


def _opens_nothing() -> Expressions:
    """A TCP segment that is not SYN without ACK."""
    mask = {
        "sreg": _REGISTER,
        "dreg": _REGISTER,
        "len": 1,
        "mask": {"attrs": [("NFTA_DATA_VALUE", _SYN_ACK)]},
        "xor": {"attrs": [("NFTA_DATA_VALUE", b"\x00")]},
    }
    return [*_protocol(_TCP), *_load(_TCP_FLAGS), genex("bitwise", mask), *_compare(_SYN, _NOT_EQUAL)]


def _protocol(number: int) -> Expressions:
    return _meta(_META_L4PROTO, bytes([number]))


def _to(address: IPv4Address, protocol: int, port: int) -> Expressions:
    return [
        *_payload(_DESTINATION, address.packed),
        *_protocol(protocol),
        *_payload(_PORT, port.to_bytes(2, "big")),
    ]


def rules(plan: Plan, host: IPv4Address, allowed_ports: Sequence[int]) -> list[Expressions]:
    """What passes from the bridge; everything else is dropped."""
    passing = [
        _opens_nothing(),
        _protocol(_ICMP),
        _to(plan.gateway, _UDP, _DNS),
        _to(plan.gateway, _TCP, _DNS),
        *(_to(host, _TCP, port) for port in allowed_ports),
    ]
    return [[*rule, *verdict(_ACCEPT)] for rule in passing] + [list(verdict(_DROP))]


def install(*, bridge: str, plan: Plan, host: IPv4Address, allowed_ports: Sequence[int]) -> str:
    """Filter what comes from `bridge`. Call it in the stack's network namespace. Idempotent: replaces what was
    there. Returns what is missing compared with the full filter, or an empty string. Raises NetlinkError."""
    with IPRoute() as route:
        _pods_apart(route, bridge, plan, host)
        try:
            _nftables(bridge, rules(plan, host, allowed_ports))
        except (NetlinkError, OSError) as error:
            _answers_only(route, bridge, allowed_ports)
            return (
                "pod network filter: this kernel has no nftables "
                f"({error}); services of this machine on ports {_EPHEMERAL[0]}–{_EPHEMERAL[1]} can be "
                "reached by pods"
            )
    return ""


def _nftables(bridge: str, wanted: list[Expressions]) -> None:
    from_pods = _meta(_META_IIFNAME, bridge.encode().ljust(_INTERFACE_BYTES, b"\0"))
    nft = NFTables(nfgen_family=_IPV4)
    try:
        nft.table("add", name=_TABLE)
        nft.table("del", name=_TABLE)
        nft.table("add", name=_TABLE)
        for hook in ("forward", "input"):
            nft.chain("add", table=_TABLE, name=hook, hook=hook, type="filter", policy=_ACCEPT)
            for rule in wanted:
                nft.rule("add", table=_TABLE, chain=hook, expressions=([*from_pods], rule))
    finally:
        nft.close()


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
            ip_proto=_TCP,
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
