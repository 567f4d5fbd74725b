"""Pod addresses: which is next, and which must rest. Pure; time is passed in.

An address rests for the quarantine after its release, so that a connection that somebody still keeps to the old
pod cannot reach a new one. Addresses are handed out in turn, which makes the rest longer where there is room.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import msgspec

QUARANTINE_SECONDS = 60.0


class NoAddress(Exception):
    """Every address is in use or resting. `retry_after` in seconds, None when only a release helps."""

    def __init__(self, network: IPv4Network, retry_after: float | None) -> None:
        when = "until a pod is deleted" if retry_after is None else f"for {retry_after:.0f} s"
        super().__init__(f"no free pod address in {network} {when}")
        self.retry_after = retry_after


class AllocatorState(msgspec.Struct, frozen=True, kw_only=True):
    """What must survive a restart. `used` maps address to owner, `resting` address to when it is free again."""

    network: str
    used: dict[str, str] = {}
    resting: dict[str, float] = {}
    last: str = ""


class Allocator:
    """Invariants: an address has at most one owner; a resting one is never handed out before its time; reserved
    ones never."""

    def __init__(
        self,
        network: IPv4Network,
        *,
        reserved: frozenset[IPv4Address],
        quarantine_seconds: float = QUARANTINE_SECONDS,
    ) -> None:
        self.network = network
        self._reserved = reserved | {network.network_address, network.broadcast_address}
        self._quarantine = quarantine_seconds
        self._used: dict[IPv4Address, str] = {}
        self._resting: dict[IPv4Address, float] = {}
        self._last = network.network_address

    @classmethod
    def restore(
        cls,
        state: AllocatorState,
        *,
        reserved: frozenset[IPv4Address],
        quarantine_seconds: float = QUARANTINE_SECONDS,
    ) -> Allocator:
        """Raises ValueError when the state is not one."""
        allocator = cls(IPv4Network(state.network), reserved=reserved, quarantine_seconds=quarantine_seconds)
        allocator._used = {IPv4Address(address): owner for address, owner in state.used.items()}
        allocator._resting = {IPv4Address(address): until for address, until in state.resting.items()}
        if state.last:
            allocator._last = IPv4Address(state.last)
        return allocator

    def state(self) -> AllocatorState:
        return AllocatorState(
            network=str(self.network),
            used={str(address): owner for address, owner in self._used.items()},
            resting={str(address): until for address, until in self._resting.items()},
            last=str(self._last),
        )

    def used(self) -> dict[IPv4Address, str]:
        return dict(self._used)

    def allocate(self, owner: str, *, now: float) -> IPv4Address:
        """Raises NoAddress."""
        self._resting = {address: until for address, until in self._resting.items() if until > now}
        size = self.network.num_addresses
        start = int(self._last) - int(self.network.network_address)
        for step in range(1, size + 1):
            address = self.network[(start + step) % size]
            if address not in self._reserved and address not in self._used and address not in self._resting:
                self._used[address] = owner
                self._last = address
                return address
        wait = min(self._resting.values()) - now if self._resting else None
        raise NoAddress(self.network, wait)

    def claim(self, address: IPv4Address, owner: str) -> None:
        """`owner` has it already, whatever was stored. Raises ValueError for an address outside the network."""
        if address not in self.network or address in self._reserved:
            raise ValueError(f"{address} is not a pod address of {self.network}")
        self._resting.pop(address, None)
        self._used[address] = owner

    def release(self, address: IPv4Address, *, now: float, rest: bool = True) -> None:
        """Idempotent. `rest=False` for an address that nobody was ever told of."""
        if self._used.pop(address, None) is not None and rest:
            self._resting[address] = now + self._quarantine
