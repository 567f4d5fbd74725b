"""The stack's network namespace: bridge, pods' ports, the link to the host. Blocking; lives in one thread.

With root the namespace is our own, and one veth pair with one route joins it to the host. Without root the whole
stack already runs inside a namespace of its own, which is then used as it is. The namespace exists as long as
somebody holds a descriptor of it: the node agent and every pod's shim do, so it outlives the agent while there are
pods, and a crash without pods leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import msgspec
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from serving.api.podnetwork import PodNetworkFacts
from serving.local.network import filter as pod_filter
from serving.local.network import names
from serving.local.network.egress import Egress, Wanted
from serving.local.network.names import NetworkError, Plan

_CLONE_NEWNET = 0x40000000
_EXISTS, _NO_DEVICE, _NO_PROCESS = 17, 19, 3
_PERMANENT, _NOARP = 0x80, 0x40
_INSIDE_LINK = "host0"
_POD_INTERFACE = "eth0"
_NTF_MASTER = 4

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise NetworkError(f"{what}: {os.strerror(number)}")


def mac_of(address: IPv4Address) -> str:
    """Locally administered and stable: a pod's address decides its hardware address."""
    return "02:6e:" + ":".join(f"{byte:02x}" for byte in address.packed)


def _sysctl(name: str, value: str) -> None:
    # ip_forward and its kin belong to the namespace of the thread that opens the file.
    Path("/proc/sys/net", name).write_text(value)


def _index_here(name: str) -> int:
    """Of an interface in this thread's namespace, 0 = there is none. A system call: the netlink library takes
    milliseconds of Python to decode what it finds."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


class Stack:
    """All methods must run in the same thread, which is in the stack's namespace after `open`."""

    def __init__(self, instance: str, *, rootless: bool, directory: Path, egress: Wanted = "auto") -> None:
        names.check_instance(instance)
        self._instance = instance
        self._rootless = rootless
        self._host: Any = None
        self._inner: Any = None
        self._bridge = 0
        self.fd = -1
        self._plan: Plan | None = None
        self.filter_note = ""
        self.egress = Egress(instance, wanted=egress, rootless=rootless, directory=directory)

    @property
    def plan(self) -> Plan:
        if self._plan is None:
            raise NetworkError("the pod network is not set up")
        return self._plan

    @property
    def facts(self) -> PodNetworkFacts:
        """Where the gateway should listen for pods."""
        plan = self.plan
        inside = PodNetworkFacts(gateway=str(plan.gateway), kubernetes=str(plan.kubernetes))
        if self._rootless:
            return inside
        identity = str(os.fstat(self.fd).st_ino)
        path = f"/proc/{os.getpid()}/fd/{self.fd}"
        return msgspec.structs.replace(inside, identity=identity, namespace=path)

    @property
    def is_set_up(self) -> bool:
        return self._plan is not None

    def open(self, existing: int | None) -> Plan:
        """Enter and set up the namespace; `existing` is a descriptor of the one that pods are already in. Raises
        NetworkError."""
        try:
            self._host = IPRoute()
            self.egress.prepare()
            if existing is not None:
                _check(_libc.setns(existing, _CLONE_NEWNET), "cannot enter the pods' network namespace")
            elif not self._rootless:
                _check(_libc.unshare(_CLONE_NEWNET), "cannot create a network namespace")
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self._inner = IPRoute()
            self._plan = self._find_plan()
            return self._plan
        except NetlinkError as error:
            raise NetworkError(f"pod network: {error}") from error
        except OSError as error:
            raise NetworkError(f"pod network: {error.strerror}: {error.filename}") from error

    def _find_plan(self) -> Plan:
        present = self._index(self._inner, names.bridge(self._instance))
        if present:
            self._bridge = present
            plan = self._plan_of_bridge()
            if not self._rootless and not self._index(self._host, names.host_link(self._instance)):
                self._link_to_host(plan)
            return plan
        self._sysctls()
        for network in names.candidates(self._instance, self._taken()):
            plan = Plan(network)
            if self._rootless or self._link_to_host(plan):
                self._make_bridge(plan)
                return plan
        raise NetworkError(
            f"no free /{names.SLICE_PREFIX} for pods in {names.POOL}: every slice is routed already; "
            "stop another nodeless or remove routes of that range (ip route)"
        )

    def _sysctls(self) -> None:
        _sysctl("ipv6/conf/default/disable_ipv6", "1")
        if not self._rootless:
            _sysctl("ipv4/ip_forward", "1")
            _sysctl("ipv4/conf/all/send_redirects", "0")
            _sysctl("ipv4/conf/default/send_redirects", "0")

    def _taken(self) -> list[IPv4Network]:
        routes = []
        for route in self._host.get_routes(family=socket.AF_INET):
            target = route.get_attr("RTA_DST")
            if target is not None:
                routes.append(IPv4Network(f"{target}/{route['dst_len']}", strict=False))
        return routes

    @staticmethod
    def _index(netlink: Any, name: str) -> int:
        found = netlink.link_lookup(ifname=name)
        return int(found[0]) if found else 0

    def _plan_of_bridge(self) -> Plan:
        for address in self._inner.get_addr(index=self._bridge, family=socket.AF_INET):
            if address["prefixlen"] == names.SLICE_PREFIX:
                return Plan(IPv4Network(f"{address.get_attr('IFA_ADDRESS')}/{names.SLICE_PREFIX}", strict=False))
        raise NetworkError(f"the bridge {names.bridge(self._instance)} has no address")

    # -- the way to the host
    def _link_to_host(self, plan: Plan) -> bool:
        """False when another stack has just taken the slice."""
        name = names.host_link(self._instance)
        stale = self._index(self._host, name)
        if stale:
            self._host.link("del", index=stale)
        self._host.link(
            "add", ifname=name, kind="veth", peer={"ifname": _INSIDE_LINK, "net_ns_fd": self.fd}, state="up"
        )
        outside = self._index(self._host, name)
        self._point_to_point(self._host, outside, plan.link_host, plan.link_inside)
        inside = self._index(self._inner, _INSIDE_LINK)
        self._inner.link("set", index=inside, state="up")
        self._point_to_point(self._inner, inside, plan.link_inside, plan.link_host)
        try:
            self._host.route(
                "add",
                dst=str(plan.network),
                gateway=str(plan.link_inside),
                oif=outside,
                prefsrc=str(plan.link_host),
            )
        except NetlinkError as error:
            self._host.link("del", index=outside)
            if error.code != _EXISTS:
                raise
            return False
        return True

    @staticmethod
    def _point_to_point(netlink: Any, index: int, local: IPv4Address, remote: IPv4Address) -> None:
        netlink.addr("add", index=index, local=str(local), address=str(remote), prefixlen=32)

    # -- the bridge
    def _make_bridge(self, plan: Plan) -> None:
        name = names.bridge(self._instance)
        self._inner.link("add", ifname=name, kind="bridge", br_stp_state=0, br_mcast_snooping=0)
        self._bridge = self._index(self._inner, name)
        self._inner.link("set", index=self._bridge, address=mac_of(plan.gateway), state="up")
        self._inner.addr("add", index=self._bridge, address=str(plan.gateway), prefixlen=plan.network.prefixlen)
        self._inner.addr("add", index=self._bridge, address=str(plan.kubernetes), prefixlen=32)
        loopback = self._index(self._inner, "lo")
        self._inner.link("set", index=loopback, state="up")
        _sysctl(f"ipv4/conf/{name}/rp_filter", "1")
        # The host's end of the link is inside the slice: pods ask for it on their wire, the bridge answers.
        _sysctl(f"ipv4/conf/{name}/proxy_arp", "1")

    def filter(self, allowed_ports: Sequence[int]) -> str:
        """(Re)install the way out and the filter; returns what is missing. `allowed_ports` are TCP ports at
        `host_address`."""
        bridge = names.bridge(self._instance)
        if not self.egress.works:
            self.egress.install(self.plan, bridge=bridge, namespace=self.fd, route=self._inner)
        try:
            self.filter_note = pod_filter.install(
                bridge=bridge,
                plan=self.plan,
                host=self.host_address,
                allowed_ports=allowed_ports,
                egress=self.egress.works,
                machine=self._machine_addresses(),
            )
        except NetlinkError as error:
            raise NetworkError(f"pod network: neither nftables nor routing rules can be had: {error}") from error
        return self.filter_note

    @property
    def host_address(self) -> IPv4Address:
        """Where pods find the processes of this machine, as far as the filter allows."""
        return self.plan.gateway if self._rootless else self.plan.link_host

    # -- pods
    def attach(self, address: IPv4Address, netns: int) -> None:
        """A port on the bridge, whose other end appears as eth0 in `netns`. Raises NetworkError.

        Ports are isolated and learn nothing: who has which address is fixed here, so that a pod can neither reach
        nor impersonate another.
        """
        port, mac = names.pod_port(address), mac_of(address)
        try:
            self._inner.link(
                "add",
                ifname=port,
                kind="veth",
                master=self._bridge,
                state="up",
                peer={"ifname": _POD_INTERFACE, "net_ns_fd": netns, "address": mac},
            )
            index = _index_here(port)
            self._inner.brport("set", index=index, isolated=1, learning=0, unicast_flood=0)
            self._inner.fdb("add", ifindex=index, lladdr=mac, flags=_NTF_MASTER, state=_NOARP)
            self._inner.neigh("replace", dst=str(address), lladdr=mac, ifindex=self._bridge, state=_PERMANENT)
        except NetlinkError as error:
            self.detach(address)
            raise NetworkError(f"pod {address}: {error}") from error

    def detach(self, address: IPv4Address) -> None:
        """Idempotent."""
        index = _index_here(names.pod_port(address))
        if index:
            _ignore(_NO_DEVICE, self._inner.link, "del", index=index)
        _ignore(2, self._inner.neigh, "del", dst=str(address), ifindex=self._bridge)

    def ports(self) -> set[IPv4Address]:
        """Addresses of every pod port on the bridge."""
        found = set()
        for link in self._inner.get_links():
            name = link.get_attr("IFLA_IFNAME")
            if name.startswith("p") and len(name) == 9 and link.get_attr("IFLA_MASTER") == self._bridge:
                with contextlib.suppress(ValueError):
                    found.add(IPv4Address(int(name[1:], 16)))
        return found

    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """UDP and listening TCP sockets on the pods' resolver address."""
        where = (str(self.plan.gateway), 53)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            udp.bind(where)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind(where)
            tcp.listen(64)
        except OSError as error:
            udp.close()
            tcp.close()
            raise NetworkError(f"pods' resolver cannot listen on {where[0]}:53: {error.strerror}") from error
        udp.setblocking(False)
        tcp.setblocking(False)
        return udp, tcp

    def remove(self) -> None:
        """Take down what the host sees. Only when no pod needs it."""
        self.egress.remove(others=self._others())
        if self._rootless:
            for name in (names.bridge(self._instance),):
                index = self._index(self._inner, name)
                if index:
                    self._inner.link("del", index=index)
            return
        index = self._index(self._host, names.host_link(self._instance))
        if index:
            _ignore(_NO_DEVICE, self._host.link, "del", index=index)

    def _machine_addresses(self) -> list[IPv4Address]:
        """Of the host, as they are now. Where its own firewall sees what pods send, that knows them all at any
        time; pasta's connections are the host's own."""
        entries = self._host.get_addr(family=socket.AF_INET)
        found = {
            IPv4Address(str(entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS"))) for entry in entries
        }
        return sorted(address for address in found if not address.is_loopback and address not in names.POOL)

    def _others(self) -> bool:
        """Whether further stacks are linked to this host."""
        own = names.host_link(self._instance)
        found = (str(link.get_attr("IFLA_IFNAME")) for link in self._host.get_links())
        return any(name != own and names.is_host_link(name) for name in found)

    def close(self) -> None:
        self.egress.close()
        for netlink in (self._inner, self._host):
            if netlink is not None:
                netlink.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _ignore(code: int, call: Any, *arguments: Any, **fields: Any) -> None:
    try:
        call(*arguments, **fields)
    except NetlinkError as error:
        if error.code not in (code, _NO_PROCESS):
            raise
