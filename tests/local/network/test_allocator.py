"""Addresses: one owner each, rest after release."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from serving.local.network.allocator import Allocator, NoAddress
from serving.local.network.names import POOL, Plan, candidates, host_link, pod_port

SMALL = IPv4Network("198.18.0.0/28")
RESERVED = Plan(SMALL).reserved
REST = 60.0


class Allocation(RuleBasedStateMachine):
    """Against a model: who has what, and until when an address rests."""

    addresses = Bundle("addresses")

    def __init__(self) -> None:
        super().__init__()
        self.allocator = Allocator(SMALL, reserved=RESERVED, quarantine_seconds=REST)
        self.now = 0.0
        self.owners: dict[IPv4Address, str] = {}
        self.rests: dict[IPv4Address, float] = {}

    @rule(target=addresses, owner=st.text(min_size=1, max_size=3))
    def allocate(self, owner: str) -> IPv4Address:
        free = [
            address
            for address in SMALL.hosts()
            if address not in RESERVED and address not in self.owners and self.rests.get(address, -1.0) <= self.now
        ]
        if not free:
            with pytest.raises(NoAddress):
                self.allocator.allocate(owner, now=self.now)
            return IPv4Address("198.18.0.3")
        address = self.allocator.allocate(owner, now=self.now)
        assert address in free
        self.owners[address] = owner
        return address

    @rule(address=addresses, rest=st.booleans())
    def release(self, address: IPv4Address, rest: bool) -> None:
        self.allocator.release(address, now=self.now, rest=rest)
        if self.owners.pop(address, None) is not None and rest:
            self.rests[address] = self.now + REST

    @rule(seconds=st.floats(0, 90))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def restart(self) -> None:
        self.allocator = Allocator.restore(self.allocator.state(), reserved=RESERVED, quarantine_seconds=REST)

    @invariant()
    def same_owners(self) -> None:
        assert self.allocator.used() == self.owners


TestAllocation = Allocation.TestCase


def test_addresses_are_handed_out_in_turn() -> None:
    allocator = Allocator(SMALL, reserved=RESERVED, quarantine_seconds=0)
    first = allocator.allocate("a", now=0)
    allocator.release(first, now=0)
    assert allocator.allocate("b", now=0) != first


def test_when_the_next_is_free() -> None:
    allocator = Allocator(SMALL, reserved=RESERVED)
    taken = [allocator.allocate(str(number), now=0) for number in range(10)]
    with pytest.raises(NoAddress, match=r"no free pod address in 198.18.0.0/28 until a pod is deleted"):
        allocator.allocate("x", now=0)
    allocator.release(taken[3], now=10)
    with pytest.raises(NoAddress) as caught:
        allocator.allocate("x", now=30)
    assert caught.value.retry_after == 40
    assert allocator.allocate("x", now=71) == taken[3]


def test_claims() -> None:
    allocator = Allocator(SMALL, reserved=RESERVED)
    allocator.claim(IPv4Address("198.18.0.3"), "old")
    assert allocator.allocate("new", now=0) == IPv4Address("198.18.0.4")
    with pytest.raises(ValueError, match="is not a pod address"):
        allocator.claim(IPv4Address("10.0.0.1"), "stranger")
    with pytest.raises(ValueError, match="is not a pod address"):
        allocator.claim(IPv4Address("198.18.0.1"), "gateway")


@given(st.integers(0, 2**32 - 1), st.sets(st.integers(0, 31)))
def test_slices_avoid_what_is_taken(instance: int, taken: set[int]) -> None:
    slices = list(POOL.subnets(new_prefix=20))
    used = [slices[number] for number in taken]
    found = candidates(f"{instance:08x}", [*used, IPv4Network("0.0.0.0/0"), IPv4Network("10.0.0.0/8")])
    assert len(found) == 32 - len(taken)
    assert not any(network in used for network in found)


def test_a_wide_route_takes_everything() -> None:
    assert candidates("00000000", [IPv4Network("198.0.0.0/8")]) == []
    assert len(candidates("00000000", [IPv4Network("198.18.0.0/16")])) == 16


def test_names_fit_the_kernel() -> None:
    assert len(host_link("deadbeef")) <= 15
    assert len(pod_port(IPv4Address("198.18.255.254"))) <= 15
