"""A pod's side of its network, by ioctl: cheaper than a netlink library and nothing to import.

Runs in the shim, inside the pod's own network namespace. The other end is the node agent's business.
"""

from __future__ import annotations

import fcntl
import socket
import struct

_SIOCADDRT = 0x890B
_SIOCSIFFLAGS = 0x8914
_SIOCSIFADDR = 0x8916
_SIOCSIFNETMASK = 0x891C
_IFF_UP = 1
_RTF_UP, _RTF_GATEWAY = 1, 2


def configure(*, interface: str, address: str, prefix: int, gateway: str) -> None:
    """Address, up, default route; and lo. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        _up(control, "lo")
        _set_address(control, interface, _SIOCSIFADDR, address)
        mask = (0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF
        _set_address(control, interface, _SIOCSIFNETMASK, socket.inet_ntoa(struct.pack("!I", mask)))
        _up(control, interface)
        anywhere = _sockaddr("0.0.0.0")  # noqa: S104
        # struct rtentry: destination, gateway, netmask, flags; the rest is zero.
        route = struct.pack("=8x16s16s16sH62x", anywhere, _sockaddr(gateway), anywhere, _RTF_UP | _RTF_GATEWAY)
        fcntl.ioctl(control, _SIOCADDRT, route)


def prepare() -> None:
    """Before an interface arrives: no IPv6 addresses (the pod network is IPv4), any port and ping for any user."""
    for name, value in (
        ("ipv6/conf/default/disable_ipv6", "1"),
        ("ipv4/ip_unprivileged_port_start", "0"),
        ("ipv4/ping_group_range", "0 2147483647"),
    ):
        try:
            with open(f"/proc/sys/net/{name}", "w", encoding="ascii") as file:
                file.write(value)
        except OSError:
            continue  # a kernel without it; without root a range of groups that do not exist is refused


def loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        _up(control, "lo")


def _sockaddr(address: str) -> bytes:
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))


def _set_address(control: socket.socket, interface: str, request: int, address: str) -> None:
    fcntl.ioctl(control, request, struct.pack("16s16s8x", interface.encode(), _sockaddr(address)))


def _up(control: socket.socket, interface: str) -> None:
    fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", interface.encode(), _IFF_UP))
