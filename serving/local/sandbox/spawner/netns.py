"""A pod's side of its network, by ioctl: cheaper than a netlink library and nothing to import.

Runs in the shim, inside the pod's own network namespace. The other end is the node agent's business.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

_SIOCADDRT = 0x890B
_SIOCSARP = 0x8955
_SIOCSIFFLAGS = 0x8914
_SIOCSIFADDR = 0x8916
_SIOCSIFNETMASK = 0x891C
_IFF_UP = 1
_RTF_UP, _RTF_GATEWAY, _RTF_HOST = 1, 2, 4
_ATF_COM, _ATF_PERM = 2, 4
_ANY, _ONE = "0.0.0.0", "255.255.255.255"  # noqa: S104


def configure(*, interface: str, address: str, gateway: str, gateway_mac: str) -> None:
    """lo, the address, and everything by way of the gateway. Raises OSError.

    The address is a /32: a pod has no neighbours but its gateway, whose hardware address is told and not asked
    for.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        _up(control, "lo")
        _set_address(control, interface, _SIOCSIFADDR, address)
        _set_address(control, interface, _SIOCSIFNETMASK, _ONE)
        _up(control, interface)
        hardware = struct.pack("=H6s8x", 1, bytes.fromhex(gateway_mac.replace(":", "")))
        entry = struct.pack(
            "=16s16si16s16s", _sockaddr(gateway), hardware, _ATF_COM | _ATF_PERM, bytes(16), interface.encode()
        )
        device = ctypes.create_string_buffer(interface.encode())
        _route(control, gateway, _ONE, _ANY, _RTF_UP | _RTF_HOST, ctypes.addressof(device))
        fcntl.ioctl(control, _SIOCSARP, entry)
        _route(control, _ANY, _ANY, gateway, _RTF_UP | _RTF_GATEWAY, 0)


def _route(control: socket.socket, target: str, mask: str, gateway: str, flags: int, device: int) -> None:
    # struct rtentry: pad, destination, gateway, netmask, flags, …, metric, device, mtu, window, irtt.
    route = struct.pack(
        "=8x16s16s16sH22x2x6xQ24x", _sockaddr(target), _sockaddr(gateway), _sockaddr(mask), flags, device
    )
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
