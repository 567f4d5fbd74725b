"""The pods' way to the world outside. Blocking; lives in the stack's thread.

With root the host translates addresses (one table of nftables of our own, removed with the stack) and forwards.
What a host's own firewall drops cannot be allowed from another table, so where forwarding is refused, or nftables
is missing, `pasta` carries the packets from inside the stack's namespace, as it always does without root.

The host tracks connections as soon as one rule asks for it, which costs each of them; traffic between the gateway
and pods is exempt. Pods still reach no service of the host, on whatever address it listens, and nobody outside
reaches pods.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final, Literal

from pyroute2.netlink.exceptions import NetlinkError

from serving.local.network import nft
from serving.local.network.names import NetworkError, Plan, host_link

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
        except (OSError, NetlinkError) as error:
            self._why = f"the host cannot translate addresses: {error}"

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
        link = host_link(self._instance)
        table = nft.Table(self._host, self._table)
        table.renew()
        pods, peer = nft.source(plan.network), nft.arrives_at(link)
        to_host = nft.destination(IPv4Network(plan.link_host))
        table.chain("raw", hook="prerouting", priority=_RAW, rules=[[*peer, *to_host, *nft.untracked()]])
        table.chain(
            "raw_out", hook="output", priority=_RAW, rules=[[*nft.destination(plan.network), *nft.untracked()]]
        )
        table.chain("input", hook="input", rules=[[*peer, *nft.opens(), *nft.drop()]])
        table.chain(
            "forward",
            hook="forward",
            rules=[
                [*nft.leaves_by(link), *nft.answers(), *nft.accept()],
                [*nft.leaves_by(link), *nft.drop()],
            ],
        )
        table.chain(
            "postrouting",
            hook="postrouting",
            kind="nat",
            priority=_SOURCE_NAT,
            rules=[[*pods, *nft.leaves_not_by(link), *nft.masquerade()]],
        )
        self._forward()
        route.route("replace", dst="default", gateway=str(plan.link_host))

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
        with nft.open_socket() as socket:
            table = nft.Table(socket, _INSIDE_TABLE)
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
