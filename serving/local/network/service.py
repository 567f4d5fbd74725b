"""The pod network as the sandboxes use it: addresses, ports on the bridge, the resolver. Never blocks the loop."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

import msgspec

from serving.api.podnetwork import PodNetworkFacts
from serving.local.network.allocator import Allocator, AllocatorState
from serving.local.network.egress import Wanted
from serving.local.network.names import NetworkError, Plan
from serving.local.network.resolver import Found, Lookup, Resolver, Upstream
from serving.local.network.rootless import DNS_FORWARD, inside, load
from serving.local.network.stack import Stack, mac_of

T = TypeVar("T")
_STATE_NAME = "network.json"


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """What a pod's side needs to configure its interface."""

    address: IPv4Address
    """To be used as a /32: everything else is reached by way of the gateway."""
    gateway: IPv4Address
    gateway_mac: str
    mac: str
    """Of the pod's own interface."""


def _nothing(_: str) -> Found | None:
    return None


class PodNetwork:
    """One bridge for all pods of one stack.

    `lookup` answers cluster-local names (None = not ours: forwarded). `allowed_ports` are TCP ports at
    `host_address` that pods may open; everything else of this machine is closed to them. `egress`: how pods reach
    other machines. `rootless` (found out by
    default) means that this process runs in a network namespace made for the stack.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        instance: str,
        rootless: bool | None = None,
        lookup: Lookup = _nothing,
        allowed_ports: Sequence[int] = (),
        upstreams: Sequence[Upstream] | None = None,
        egress: Wanted = "auto",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = data_dir / _STATE_NAME
        self._clock = clock
        self._allowed_ports = tuple(allowed_ports)
        rootless = inside() if rootless is None else rootless
        self._stack = Stack(instance, rootless=rootless, directory=data_dir, egress=egress)
        if upstreams is None and rootless and load(data_dir) is not None:
            upstreams = [(DNS_FORWARD, 53)]  # the host's own may listen on a loopback that is not ours
        self._resolver = Resolver(lookup=lookup, upstreams=upstreams)
        self._thread: ThreadPoolExecutor | None = None
        self._allocator: Allocator | None = None
        self._plan: Plan | None = None

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        if self._thread is None:
            raise NetworkError("the pod network is not started")
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    @property
    def started(self) -> bool:
        return self._plan is not None

    @property
    def plan(self) -> Plan:
        if self._plan is None:
            raise NetworkError("the pod network is not started")
        return self._plan

    @property
    def host_address(self) -> IPv4Address:
        return self._stack.host_address

    @property
    def resolver_address(self) -> IPv4Address:
        return self.plan.gateway

    @property
    def filter_note(self) -> str:
        """What the filter lacks on this kernel; empty = nothing."""
        return self._stack.filter_note

    @property
    def facts(self) -> PodNetworkFacts:
        """Where the gateway should listen for pods."""
        return self._stack.facts

    @property
    def egress_note(self) -> str:
        """Why pods reach no other machine, or by what unusual way; empty = the host forwards."""
        return self._stack.egress.note

    @property
    def fd(self) -> int:
        """The stack's namespace; whoever holds a copy keeps it alive."""
        return self._stack.fd

    async def start(self, existing: int | None = None) -> None:
        """Idempotent. `existing`: a descriptor of the namespace that living pods are in. Raises NetworkError."""
        if self._plan is not None:
            return
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pod-network")
        try:
            plan = await self._run(self._stack.open, existing)
            await self._run(self._stack.filter, self._allowed_ports)
            self._allocator = await self._run(self._load, plan)
            udp, tcp = await self._run(self._stack.sockets)
            await self._resolver.start(udp, tcp)
        except BaseException:
            await self._shut(remove=existing is None)
            raise
        self._plan = plan

    async def allow(self, ports: Sequence[int]) -> None:
        """Replace the TCP ports at `host_address` that pods may open."""
        self._allowed_ports = tuple(ports)
        await self._run(self._stack.filter, self._allowed_ports)

    def _load(self, plan: Plan) -> Allocator:
        try:
            state = msgspec.json.decode(self._file.read_bytes(), type=AllocatorState)
            if state.network == str(plan.network):
                return Allocator.restore(state, reserved=plan.reserved)
        except FileNotFoundError:
            pass
        except (msgspec.DecodeError, ValueError) as error:
            raise NetworkError(
                f"{self._file} cannot be read ({error}); it holds only pod addresses: delete it when no pod runs"
            ) from error
        return Allocator(plan.network, reserved=plan.reserved)

    def _save(self, state: AllocatorState) -> None:
        temporary = self._file.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(state))
        os.replace(temporary, self._file)

    def _addresses(self) -> Allocator:
        if self._allocator is None:
            raise NetworkError("the pod network is not started")
        return self._allocator

    async def attach(self, netns: int, owner: str) -> Lease:
        """An address and a port on the bridge for the namespace. Raises NoAddress, NetworkError."""
        plan, allocator = self.plan, self._addresses()
        address = allocator.allocate(owner, now=self._clock())
        try:
            await self._run(self._attach, address, netns, allocator.state())
        except BaseException:
            allocator.release(address, now=self._clock(), rest=False)
            raise
        return Lease(address=address, gateway=plan.gateway, gateway_mac=mac_of(plan.gateway), mac=mac_of(address))

    def _attach(self, address: IPv4Address, netns: int, state: AllocatorState) -> None:
        self._save(state)
        self._stack.attach(address, netns)

    async def detach(self, address: IPv4Address, *, rest: bool = True) -> None:
        """Remove the port; the address rests before it is used again. Idempotent."""
        allocator = self._addresses()
        allocator.release(address, now=self._clock(), rest=rest)
        await self._run(self._detach, address, allocator.state())

    def _detach(self, address: IPv4Address, state: AllocatorState) -> None:
        self._stack.detach(address)
        self._save(state)

    async def keep_only(self, pods: dict[IPv4Address, str]) -> None:
        """After a crash: these addresses belong to these owners; ports and addresses of anybody else are released,
        and rest."""
        allocator = self._addresses()
        for address, owner in pods.items():
            allocator.claim(address, owner)
        stale = allocator.used().keys() | await self._run(self._stack.ports)
        for address in stale - pods.keys():
            allocator.claim(address, "left behind")
            await self.detach(address)

    async def _shut(self, *, remove: bool) -> None:
        await self._resolver.stop()
        if self._thread is None:
            return
        thread, self._thread = self._thread, None
        loop = asyncio.get_running_loop()
        try:
            if remove and self._stack.is_set_up:
                await loop.run_in_executor(thread, self._stack.remove)
            await loop.run_in_executor(thread, self._stack.close)
        finally:
            # The thread lives in another network namespace: it must end, not be reused.
            await asyncio.to_thread(thread.shutdown)
        self._plan = None

    async def stop(self, *, remove: bool) -> None:
        """Idempotent. `remove` takes the network down; without it living pods keep theirs and can be adopted."""
        await self._shut(remove=remove)
