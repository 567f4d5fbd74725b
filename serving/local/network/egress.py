"""The pods' way to the world outside. Blocking; lives in the stack's thread.

With root the host translates addresses (one table of nftables of our own, removed with the stack) and forwards.
What a host's own firewall drops cannot be allowed from another table, so where forwarding is refused, or nftables
is missing, `pasta` carries the packets from inside the stack's namespace, as it always does without root.

Pods still reach no service of the host, on whatever address it listens, and nobody outside
reaches pods.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from pyroute2.netlink.exceptions import NetlinkError

from serving.local.network import nft
from serving.local.network.names import NetworkError, Plan, host_link, is_host_link

_INSIDE_TABLE: Final = "nodeless_out"
_RAW, _SOURCE_NAT = -300, 100
_FORWARD_HOOK, _DROP_POLICY = 2, 0
_FORWARDING: Final = "/proc/sys/net/ipv4/ip_forward"
_MARK: Final = Path("/run/nodeless-forwards")
"""Says that this machine forwards only for us, to the last stack that goes. Ends with a boot, as the setting."""
_PASTA_SECONDS: Final = 5.0
_PASTA_STEP_SECONDS: Final = 0.005


Wanted = Literal["auto", "pasta", "off"]
"""`auto`: by the host where it forwards, else by pasta."""

_BIND, _DETACH = 0x1000, 2
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        raise NetworkError(f"{what}: {os.strerror(ctypes.get_errno())}")


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """A base chain of the host's table."""

    name: str
    hook: str
    rules: list[nft.Rule]
    kind: str = "filter"
    priority: int = 0


def host_chains(plan: Plan, link: str, *, spare_loopback: bool) -> list[Chain]:
    """What the host does for pods: their packets leave under its address, their connections to its own addresses
    are dropped, and nobody outside reaches them.

    One rule that translates addresses makes the host track every connection, which costs a request several
    microseconds. What goes between the gateway and pods is exempt, and loopback where that can disturb nobody
    (`spare_loopback`).
    """
    peer = nft.arrives_at(link)
    raw = [[*peer, *nft.destination(IPv4Network(plan.link_host)), *nft.untracked()]]
    raw_out = [[*nft.destination(plan.network), *nft.untracked()]]
    if spare_loopback:
        raw.insert(0, [*nft.arrives_at("lo"), *nft.untracked()])
        raw_out.insert(0, [*nft.leaves_by("lo"), *nft.untracked()])
    to_pods = nft.leaves_by(link)
    forward = [[*to_pods, *nft.answers(), *nft.accept()], [*to_pods, *nft.drop()]]
    out = [[*nft.source(plan.network), *nft.leaves_not_by(link), *nft.masquerade()]]
    return [
        Chain(name="raw", hook="prerouting", priority=_RAW, rules=raw),
        Chain(name="raw_out", hook="output", priority=_RAW, rules=raw_out),
        Chain(name="input", hook="input", rules=[[*peer, *nft.opens(), *nft.drop()]]),
        Chain(name="forward", hook="forward", rules=forward),
        Chain(name="postrouting", hook="postrouting", kind="nat", priority=_SOURCE_NAT, rules=out),
    ]


class Egress:
    """`prepare` in the host's network namespace, everything else in the stack's. `note` says why there is no way
    out, or what carries it when that is not the host; `works` whether there is one."""

    def __init__(self, instance: str, *, wanted: Wanted, rootless: bool, directory: Path) -> None:
        self._instance = instance
        self._wanted = wanted
        self._rootless = rootless
        self._log = directory / "egress.log"
        self._host: Any = None
        self._forwarding = -1
        self._why = ""
        self._pasta: subprocess.Popen[bytes] | None = None
        self.works = False
        self.note = ""

    def prepare(self) -> None:
        """Keep what can only be opened here."""
        try:
            self._host = nft.open_socket()
            self._forwarding = os.open(_FORWARDING, os.O_RDWR | os.O_CLOEXEC)
            self._sweep()
        except (OSError, NetlinkError) as error:
            self._why = f"the host cannot translate addresses: {error}"

    def _sweep(self) -> None:
        """Remove tables of stacks that were killed: their link to the host went with their namespace."""
        links = {name for _, name in socket.if_nameindex()}
        for table in self._host.get_tables():
            name = str(table.get_attr("NFTA_TABLE_NAME"))
            prefix, _, instance = name.partition("_")
            if prefix == "nodeless" and is_host_link(host_link(instance)) and host_link(instance) not in links:
                nft.Table(self._host, name).delete()

    def install(self, plan: Plan, *, bridge: str, namespace: int, route: Any) -> None:
        """Idempotent. `route`: netlink in the stack's namespace, whose descriptor is `namespace`."""
        if self._wanted == "off":
            return
        try:
            if self._rootless:
                self._inside(plan, bridge)
                self.works = True
                return
            why = "it is wanted" if self._wanted == "pasta" else self._why or self._refused()
            if not why:
                self._by_host(plan, route)
                self.works = True
                return
            self._by_pasta(plan, why, bridge=bridge, namespace=namespace)
            self.works, self.note = True, "" if self._wanted == "pasta" else f"egress through pasta: {why}"
        except (NetlinkError, NetworkError, OSError) as error:
            self.works, self.note = False, f"pods cannot reach other machines: {error}"

    def _refused(self) -> str:
        """Why the host would not forward; empty when it would."""
        for chain in self._host.get_chains():
            hook = chain.get_attr("NFTA_CHAIN_HOOK")
            if hook is None or hook.get_attr("NFTA_HOOK_HOOKNUM") != _FORWARD_HOOK:
                continue
            if chain.get_attr("NFTA_CHAIN_POLICY") == _DROP_POLICY:
                table, name = chain.get_attr("NFTA_CHAIN_TABLE"), chain.get_attr("NFTA_CHAIN_NAME")
                return f"the host's firewall (table {table}, chain {name}) drops what it forwards"
        return ""

    # The host

    def _by_host(self, plan: Plan, route: Any) -> None:
        table = nft.Table(self._host, self._table)
        alone = self._alone()
        table.renew()
        for chain in host_chains(plan, host_link(self._instance), spare_loopback=alone):
            table.chain(chain.name, hook=chain.hook, rules=chain.rules, kind=chain.kind, priority=chain.priority)
        self._forward()
        route.route("replace", dst="default", gateway=str(plan.link_host))

    def _alone(self) -> bool:
        """Nobody but us has rules on this host, so that nobody else can want loopback's connections tracked."""
        tables = (str(table.get_attr("NFTA_TABLE_NAME")) for table in self._host.get_tables())
        legacy = Path("/proc/net/ip_tables_names")
        others = legacy.read_text().split() if legacy.exists() else []
        return not others and all(name.startswith("nodeless_") for name in tables)

    def _forward(self) -> None:
        had = os.pread(self._forwarding, 16, 0).decode().strip()
        if had != "0":
            return
        os.pwrite(self._forwarding, b"1\n", 0)
        _MARK.touch()

    @property
    def _table(self) -> str:
        return f"nodeless_{self._instance}"

    # Inside

    def _inside(self, plan: Plan, bridge: str) -> None:
        """Whatever carries packets out of this namespace knows one address of it."""
        Path(_FORWARDING).write_text("1")
        with nft.open_socket() as netlink:
            table = nft.Table(netlink, _INSIDE_TABLE)
            table.renew()
            table.chain(
                "postrouting",
                hook="postrouting",
                kind="nat",
                priority=_SOURCE_NAT,
                rules=[
                    [*nft.destination(IPv4Network(plan.link_host)), *nft.accept()],
                    [*nft.source(plan.network), *nft.leaves_not_by(bridge), *nft.masquerade()],
                ],
            )

    def _by_pasta(self, plan: Plan, why: str, *, bridge: str, namespace: int) -> None:
        program = shutil.which("pasta")
        if program is None:
            raise NetworkError(f"{why}; install pasta (Debian and Ubuntu: apt install passt)")
        self._inside(plan, bridge)
        with self._named(namespace) as path:
            command = [program, "--config-net", "--quiet", "--foreground", "--no-map-gw", "--runas", "0"]
            command += ["-t", "none", "-u", "none", "-T", "none", "-U", "none"]
            self._pasta = self._in_host([*command, "--netns-only", "--no-netns-quit", "--netns", str(path)])
            self._wait_for(self._pasta)

    def _in_host(self, command: list[str]) -> subprocess.Popen[bytes]:
        """A program that begins in the host's namespace, where this thread is not, and ends with this thread."""
        host = os.open(f"/proc/{os.getpid()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        enter = ["nsenter", f"--net=/proc/self/fd/{host}", "setpriv", "--pdeathsig", "KILL"]
        try:
            with self._log.open("wb") as output:
                return subprocess.Popen(
                    [*enter, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=(host,)
                )
        finally:
            os.close(host)

    @contextlib.contextmanager
    def _named(self, namespace: int) -> Iterator[Path]:
        """A path for the namespace while pasta opens it: it gives up the right to look into our descriptors."""
        path = self._log.with_suffix(".netns")
        path.touch()
        _check(_libc.mount(f"/proc/self/fd/{namespace}".encode(), bytes(path), None, _BIND, None), str(path))
        try:
            yield path
        finally:
            _libc.umount2(bytes(path), _DETACH)
            path.unlink(missing_ok=True)

    def _wait_for(self, pasta: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _PASTA_SECONDS
        while not self._has_default_route():  # it has no other way of telling
            if pasta.poll() is not None:
                raise NetworkError(f"pasta: {self._log.read_text(errors='replace').strip()}")
            if time.monotonic() > deadline:
                self._end_pasta()
                raise NetworkError(f"pasta was not ready within {_PASTA_SECONDS:g} s")
            time.sleep(_PASTA_STEP_SECONDS)

    @staticmethod
    def _has_default_route() -> bool:
        lines = Path("/proc/thread-self/net/route").read_text().splitlines()[1:]
        return any(line.split()[1] == "00000000" for line in lines)

    def _end_pasta(self) -> None:
        if self._pasta is not None:
            self._pasta.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._pasta.wait(_PASTA_SECONDS)
            self._pasta = None

    # The end

    def remove(self, *, others: bool) -> None:
        """Take back what was done to the host. `others`: further stacks on this machine still need forwarding."""
        if self._host is not None and not self._rootless:
            with contextlib.suppress(NetlinkError):
                nft.Table(self._host, self._table).delete()
            if not others and self._forwarding >= 0 and _MARK.exists():
                os.pwrite(self._forwarding, b"0\n", 0)
                _MARK.unlink(missing_ok=True)

    def close(self) -> None:
        self._end_pasta()
        if self._host is not None:
            self._host.close()
            self._host = None
        if self._forwarding >= 0:
            os.close(self._forwarding)
            self._forwarding = -1
