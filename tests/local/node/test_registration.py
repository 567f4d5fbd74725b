"""The Node on one machine and in a cluster, and what is written when somebody else changed it."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.local.node.registration import TAINT, metadata_patch, node_object, node_status_patch, taint_patch
from serving.local.node.resource_metrics import NodeUse, PodUse, exposition, summary
from serving.local.node.settings import NodeSettings

SETTINGS = NodeSettings(name="n", data_dir=Path("/data"), instance="i", address="10.0.0.1")
CAPACITY = {"cpu": "2"}


def _node(port: int | None) -> dict[str, object]:
    return node_object(SETTINGS, rung="namespace", capacity=CAPACITY, version="1", port=port)


def test_on_one_machine_the_socket_is_enough() -> None:
    node = node_object(SETTINGS, rung="namespace", capacity=CAPACITY, version="1")
    assert "spec" not in node
    assert "daemonEndpoints" not in node["status"]
    assert [one["type"] for one in node["status"]["addresses"]] == ["InternalIP", "Hostname"]
    assert node["metadata"]["annotations"]["nodeless.dev/kubelet"] == "unix:/data/kubelet.sock"


def test_in_a_cluster_it_is_a_virtual_node() -> None:
    node = node_object(SETTINGS, rung="namespace", capacity=CAPACITY, version="1", port=10250)
    assert node["spec"]["taints"] == [TAINT]
    assert node["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}
    assert node["status"]["addresses"] == [{"type": "InternalIP", "address": "10.0.0.1"}]
    assert node["metadata"]["labels"]["type"] == "virtual-kubelet"


@pytest.mark.parametrize(
    ("taints", "expected"),
    [
        ([], [TAINT]),
        ([{"key": "other", "effect": "NoExecute"}], [{"key": "other", "effect": "NoExecute"}, TAINT]),
        ([TAINT], None),
        ([{**TAINT, "value": "changed by an administrator"}], None),
        ([{**TAINT, "effect": "NoExecute"}], [{**TAINT, "effect": "NoExecute"}, TAINT]),
    ],
)
def test_our_taint_is_added_to_others(taints: list[dict[str, str]], expected: list[dict[str, str]] | None) -> None:
    old = {"metadata": {"resourceVersion": "7"}, "spec": {"taints": taints}}
    patch = taint_patch(old, _node(1))
    if expected is None:
        assert patch == {}
    else:
        assert patch == {"metadata": {"resourceVersion": "7"}, "spec": {"taints": expected}}
    assert taint_patch(old, _node(None)) == {}


def test_quantities_are_compared_by_value() -> None:
    """A real API server stores 1000 pods as 1k: that is no difference to write again at every heartbeat."""
    node = node_object(SETTINGS, rung="namespace", capacity={"pods": "1000", "memory": "2048Ki"}, version="1")
    stored = node_status_patch({}, node, 0.0)
    for field in ("capacity", "allocatable"):
        stored["status"][field] = {"pods": "1k", "memory": "2Mi"}
    assert node_status_patch(stored, node, 99.0) == {}
    stored["status"]["capacity"] = {"pods": "2k", "memory": "2Mi"}
    assert node_status_patch(stored, node, 99.0) == {"status": {"capacity": {"pods": "1000", "memory": "2048Ki"}}}


def test_a_node_that_is_as_it_should_be_is_not_written() -> None:
    node = _node(10250)
    patch = node_status_patch({}, node, 0.0)
    stored = {**node, "status": patch["status"], "metadata": {**node["metadata"], "resourceVersion": "1"}}  # type: ignore[dict-item]
    assert node_status_patch(stored, node, 99.0) == {}
    assert metadata_patch(stored, node) == {}
    assert taint_patch(stored, node) == {}
    moved = node_status_patch(stored, _node(10251), 99.0)
    assert moved == {"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 10251}}}}
    dead = {
        "type": "Ready",
        "status": "Unknown",
        "reason": "NodeStatusUnknown",
        "message": "",
        "lastTransitionTime": "x",
    }
    others = [one for one in stored["status"]["conditions"] if one["type"] != "Ready"]
    lost = {**stored, "status": {**stored["status"], "conditions": [*others, dead]}}
    revived = {one["type"]: one for one in node_status_patch(lost, node, 99.0)["status"]["conditions"]}
    assert revived["Ready"]["status"] == "True"
    assert revived["Ready"]["lastTransitionTime"] == "1970-01-01T00:01:39Z"


def test_what_is_used() -> None:
    node = NodeUse(cpu_seconds=10.5, memory_bytes=1000, started_at=5.0)
    single = PodUse(
        name="p", namespace="d", uid="u", containers=(("c", 3.0),), cpu_seconds=1.5, memory_bytes=10, pids=2
    )
    double = PodUse(
        name="q",
        namespace="d",
        uid="v",
        containers=(("a", 3.0), ("b", 4.0)),
        cpu_seconds=2,
        memory_bytes=20,
        pids=3,
    )
    text = exposition(node, [single, double], now=100.0)
    assert "node_cpu_usage_seconds_total 10.5 100000\n" in text
    assert 'pod_memory_working_set_bytes{namespace="d",pod="q"} 20 100000\n' in text
    assert 'container_cpu_usage_seconds_total{container="c",namespace="d",pod="p"} 1.5 100000\n' in text
    assert 'container="a",namespace="d",pod="q"} 3.0\n' in text
    assert 'container_cpu_usage_seconds_total{container="a"' not in text
    assert exposition(node, [], now=1.0).count("# TYPE") == 3
    body = summary("n", node, [single, double], now=100.0)
    assert body["node"]["cpu"] == {"time": "1970-01-01T00:01:40Z", "usageCoreNanoSeconds": 10_500_000_000}
    assert body["pods"][0]["containers"][0]["memory"]["workingSetBytes"] == 10
    assert "memory" not in body["pods"][1]["containers"][0]
