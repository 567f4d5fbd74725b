"""Expressions of nftables, by netlink: no `nft` program is needed. Pure, but for `Table`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

from pyroute2.nftables.expressions import genex, verdict
from pyroute2.nftables.main import NFTables

IPV4: Final = 2
_REGISTER: Final = 1
_EQUAL, _NOT_EQUAL = 0, 1
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_META_IIFNAME, _META_OIFNAME, _META_L4PROTO = 6, 7, 16
_CT_STATE: Final = 0
_ESTABLISHED_OR_RELATED, _NEW = 2 | 4, 8
_INTERFACE_BYTES: Final = 16
_SOURCE, _DESTINATION = 12, 16
_TCP_FLAGS: Final = 13
_SYN, _SYN_ACK = b"\x02", b"\x12"
_ACCEPT, _DROP = 1, 0
ICMP, TCP, UDP = 1, 6, 17

Rule = list[Any]


def _compare(value: bytes, operation: int = _EQUAL) -> Rule:
    return [genex("cmp", {"sreg": _REGISTER, "op": operation, "data": {"attrs": [("NFTA_DATA_VALUE", value)]}})]


def _masked(mask: bytes) -> Rule:
    fields = {
        "sreg": _REGISTER,
        "dreg": _REGISTER,
        "len": len(mask),
        "mask": {"attrs": [("NFTA_DATA_VALUE", mask)]},
        "xor": {"attrs": [("NFTA_DATA_VALUE", bytes(len(mask)))]},
    }
    return [genex("bitwise", fields)]


def _load(base: int, offset: int, length: int) -> Rule:
    return [genex("payload", {"dreg": _REGISTER, "base": base, "offset": offset, "len": length})]


def _interface(key: int, name: str, operation: int) -> Rule:
    padded = name.encode().ljust(_INTERFACE_BYTES, b"\0")
    return [genex("meta", {"key": key, "dreg": _REGISTER}), *_compare(padded, operation)]


def arrives_at(interface: str) -> Rule:
    return _interface(_META_IIFNAME, interface, _EQUAL)


def leaves_by(interface: str) -> Rule:
    return _interface(_META_OIFNAME, interface, _EQUAL)


def leaves_not_by(interface: str) -> Rule:
    return _interface(_META_OIFNAME, interface, _NOT_EQUAL)


def protocol(number: int) -> Rule:
    return [genex("meta", {"key": _META_L4PROTO, "dreg": _REGISTER}), *_compare(bytes([number]))]


def source(network: IPv4Network) -> Rule:
    return _in_network(_SOURCE, network)


def destination(network: IPv4Network) -> Rule:
    return _in_network(_DESTINATION, network)


def destination_is_not(address: IPv4Address) -> Rule:
    return [*_load(_NETWORK_HEADER, _DESTINATION, 4), *_compare(address.packed, _NOT_EQUAL)]


def _in_network(offset: int, network: IPv4Network) -> Rule:
    mask = [] if network.prefixlen == 32 else _masked(network.netmask.packed)
    return [*_load(_NETWORK_HEADER, offset, 4), *mask, *_compare(network.network_address.packed)]


def to(address: IPv4Address, proto: int, port: int) -> Rule:
    return [
        *_load(_NETWORK_HEADER, _DESTINATION, 4),
        *_compare(address.packed),
        *protocol(proto),
        *_load(_TRANSPORT_HEADER, 2, 2),
        *_compare(port.to_bytes(2, "big")),
    ]


def opens_nothing() -> Rule:
    """A TCP segment that is not SYN without ACK."""
    flags = _load(_TRANSPORT_HEADER, _TCP_FLAGS, 1)
    return [*protocol(TCP), *flags, *_masked(_SYN_ACK), *_compare(_SYN, _NOT_EQUAL)]


def answers() -> Rule:
    """Belongs to a connection that is tracked already."""
    return _tracked(_ESTABLISHED_OR_RELATED)


def opens() -> Rule:
    """The first packet of a tracked connection."""
    return _tracked(_NEW)


def _tracked(states: int) -> Rule:
    # The kernel keeps the state in the machine's byte order.
    mask = states.to_bytes(4, sys.byteorder)
    load = genex("ct", {"dreg": _REGISTER, "key": _CT_STATE})
    return [load, *_masked(mask), *_compare(bytes(4), _NOT_EQUAL)]


def accept() -> Rule:
    return list(verdict(_ACCEPT))


def drop() -> Rule:
    return list(verdict(_DROP))


def masquerade() -> Rule:
    return [genex("masq", {})]


def untracked() -> Rule:
    return [{"attrs": [("NFTA_EXPR_NAME", "notrack")]}]


class Table:
    """One table of IPv4, replaced as a whole. Works on the network namespace in which `socket` was opened."""

    def __init__(self, socket: NFTables, name: str) -> None:
        self._socket = socket
        self._name = name

    def renew(self) -> None:
        """Empty, whether it was there or not. Raises NetlinkError."""
        self._socket.table("add", name=self._name)
        self._socket.table("del", name=self._name)
        self._socket.table("add", name=self._name)

    def delete(self) -> None:
        """Idempotent. Raises NetlinkError."""
        self._socket.table("add", name=self._name)
        self._socket.table("del", name=self._name)

    def chain(
        self, name: str, *, hook: str, rules: Sequence[Rule], kind: str = "filter", priority: int = 0
    ) -> None:
        """A base chain that accepts what no rule speaks of. Raises NetlinkError."""
        self._socket.chain(
            "add", table=self._name, name=name, hook=hook, type=kind, priority=priority, policy=_ACCEPT
        )
        for rule in rules:
            self._socket.rule("add", table=self._name, chain=name, expressions=([rule]))


def open_socket() -> NFTables:
    """Raises OSError, NetlinkError where the kernel has no nftables."""
    return NFTables(nfgen_family=IPV4)
