from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.meta import ObjectMeta
from serving.api.pod import Container, Pod, PodSpec, PodStatus, ResourceRequirements
from serving.pool.placement import Node, Refusal, Usage, needs, place, place_many, usage_by_node
from serving.pool.template import Placement
from serving.pool.usage import NodeUsage
from tests.pool.support import node

GIB = 1024**3
SMALL = Usage(pods=1, cpu_millis=500, memory_bytes=GIB)


def container(cpu: str = "", memory: str = "", limit: str = "") -> Container:
    requests: dict[str, str | int | float] = {}
    if cpu:
        requests["cpu"] = cpu
    if memory:
        requests["memory"] = memory
    return Container(resources=ResourceRequirements(requests=requests, limits={"cpu": limit} if limit else {}))


def chosen(result: Placement | Refusal) -> str:
    assert isinstance(result, Placement), result
    return result.node_name


def message(result: Placement | Refusal) -> str:
    assert isinstance(result, Refusal), result
    assert result.reason == "Unschedulable"
    return result.message


def test_the_emptiest_node_wins_then_the_name() -> None:
    nodes = [node("b"), node("a"), node("c")]
    assert chosen(place(SMALL, nodes, {})) == "a"
    assert chosen(place(SMALL, nodes, {"a": SMALL})) == "b"


def test_siblings_spread() -> None:
    busy = {"b": Usage(pods=3, cpu_millis=2000, memory_bytes=4 * GIB)}
    assert chosen(place(SMALL, [node("a"), node("b")], busy)) == "a"
    assert chosen(place(SMALL, [node("a"), node("b")], busy, siblings={"a": 1})) == "b"


@pytest.mark.parametrize(
    ("nodes", "usage", "expected"),
    [
        ([], {}, "0/0 nodes are available: no node has the label nodeless.dev/pool=local."),
        ([node("a", pool="other")], {}, "0/0 nodes are available: no node has the label nodeless.dev/pool=local."),
        ([node("a", ready=False)], {}, "0/1 nodes are available: 1 node(s) were not ready."),
        ([node("a", unschedulable=True)], {}, "0/1 nodes are available: 1 node(s) were unschedulable."),
        ([node("a", pods=1)], {"a": Usage(pods=1)}, "0/1 nodes are available: 1 Too many pods."),
        (
            [node("a", cpu="400m"), node("b", memory="512Mi"), node("c", cpu="0.1")],
            {},
            "0/3 nodes are available: 2 Insufficient cpu, 1 Insufficient memory.",
        ),
    ],
)
def test_refusals(nodes: list[Node], usage: dict[str, Usage], expected: str) -> None:
    assert message(place(SMALL, nodes, usage)) == expected


def test_a_node_that_goes_away_or_lies_is_no_place() -> None:
    going = msgspec.structs.replace(
        node("a"), metadata=ObjectMeta(name="a", labels={"nodeless.dev/pool": "local"}, deletion_timestamp="now")
    )
    assert "being deleted" in message(place(SMALL, [going], {}))
    assert "malformed" in message(place(SMALL, [node("a", cpu="lots")], {}))


def test_pods_without_requests_only_take_a_place() -> None:
    full = {"a": Usage(pods=1, cpu_millis=4000, memory_bytes=8 * GIB)}
    assert chosen(place(Usage(pods=1), [node("a")], full)) == "a"


def test_needs() -> None:
    spec = PodSpec(containers=(container("100m", "1Mi"), container(limit="2")), init_containers=(container("1"),))
    assert needs(spec) == Usage(pods=1, cpu_millis=2100, memory_bytes=1024**2)
    large_init = PodSpec(containers=(container("100m"),), init_containers=(container("3", "1Ki"),))
    assert needs(large_init) == Usage(pods=1, cpu_millis=3000, memory_bytes=1024)
    assert needs(PodSpec(containers=(container(),))) == Usage(pods=1)


def test_usage() -> None:
    def pod(name: str, on: str, phase: str = "Running", cpu: str = "1") -> Pod:
        return Pod(
            metadata=ObjectMeta(name=name),
            spec=PodSpec(node_name=on, containers=(container(cpu),)),
            status=PodStatus(phase=phase),
        )

    pods = [pod("1", "a"), pod("2", "a"), pod("3", "b", "Failed"), pod("4", ""), pod("5", "b", cpu="bad")]
    assert usage_by_node(pods) == {"a": Usage(pods=2, cpu_millis=2000), "b": Usage(pods=1)}


def test_many_at_once_say_why_there_are_fewer() -> None:
    placements, refusal = place_many(5, SMALL, [node("a", pods=2), node("b", pods=1)], {})
    assert sorted(entry.node_name for entry in placements) == ["a", "a", "b"]
    assert refusal is not None
    assert refusal.message == "0/2 nodes are available: 2 Too many pods."
    assert place_many(2, SMALL, [node("a")], {}, siblings={"a": 9})[1] is None


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4000)), min_size=1, max_size=5),
    st.integers(0, 12),
    st.integers(0, 2000),
)
def test_nodes_are_never_overfilled_and_no_room_is_left_unused(
    sizes: list[tuple[int, int]], count: int, cpu: int
) -> None:
    nodes = [node(f"n{index}", pods=pods, cpu=f"{millis}m") for index, (pods, millis) in enumerate(sizes)]
    need = Usage(pods=1, cpu_millis=cpu)
    placements, refusal = place_many(count, need, nodes, {})
    capacity = 0
    for index, (pods, millis) in enumerate(sizes):
        room = min(pods, millis // cpu) if cpu else pods
        capacity += room
        assert sum(entry.node_name == f"n{index}" for entry in placements) <= room
    assert len(placements) == min(count, capacity)
    assert (refusal is None) == (capacity >= count)


class TestNodeUsage:
    """Kept by changes it says the same as a sum over all pods."""

    POD = st.tuples(
        st.sampled_from(["", "a", "b"]),
        st.sampled_from(["Running", "Failed"]),
        st.sampled_from(["1", "bad", "250m"]),
    )

    @given(st.lists(st.tuples(st.integers(0, 4), st.none() | POD), max_size=30))
    def test_is_the_sum(self, changes: list[tuple[int, tuple[str, str, str] | None]]) -> None:
        usage, pods = NodeUsage(), dict[int, Pod]()
        for number, change in changes:
            old, new = pods.pop(number, None), None
            if change is not None:
                node, phase, cpu = change
                spec = PodSpec(node_name=node, containers=(container(cpu, "1Mi"),))
                new = pods[number] = Pod(
                    metadata=ObjectMeta(name=str(number)), spec=spec, status=PodStatus(phase=phase)
                )
            usage.change(old, new)
            assert usage.by_node == usage_by_node(pods.values())
