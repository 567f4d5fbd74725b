"""Revisions, pods and nodes for the pool's tests."""

from __future__ import annotations

from typing import Any

import msgspec

from serving.api.meta import Condition, JsonObject, ObjectMeta
from serving.api.v1 import Revision
from serving.pool.placement import Node, NodeSpec, NodeStatus
from serving.pool.plan import PodView

NOW = 1_000_000.0


def revision(spec: JsonObject | None = None, *, name: str = "hello-00001", **status: Any) -> Revision:
    raw = {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": "rev-uid",
            "labels": {
                "serving.knative.dev/service": "hello",
                "serving.knative.dev/configuration": "hello",
                "serving.knative.dev/configurationGeneration": "1",
                "serving.knative.dev/route": "hello",
                "serving.knative.dev/routingState": "active",
                "team": "blue",
            },
            "annotations": {
                "autoscaling.knative.dev/min-scale": "1",
                "serving.knative.dev/routes": "hello",
                "serving.knative.dev/routingStateModified": "2026-11-23T19:07:41Z",
                "serving.knative.dev/creator": "admin",
                "example.com/note": "kept",
            },
        },
        "spec": spec
        or {
            "containerConcurrency": 0,
            "timeoutSeconds": 45,
            "enableServiceLinks": False,
            "containers": [
                {
                    "name": "user-container",
                    "image": "registry.example/hello:v1",
                    "resources": {},
                    "readinessProbe": {"successThreshold": 1, "tcpSocket": {"port": 0}},
                }
            ],
        },
        "status": status,
    }
    return msgspec.convert(raw, Revision)


def pod(
    uid: str,
    *,
    age: float = 100.0,
    ready: bool = True,
    ready_since: float | None = None,
    node: str = "",
    draining: float | None = None,
    finished: bool = False,
    deleting: bool = False,
    crash_looping: bool = False,
) -> PodView:
    """`age` and `draining` are seconds before NOW."""
    return PodView(
        uid=uid,
        name=f"pod-{uid}",
        created_at=NOW - age,
        ready=ready,
        ready_since=ready_since,
        node=node,
        draining_since=None if draining is None else NOW - draining,
        finished=finished,
        deleting=deleting,
        crash_looping=crash_looping,
    )


def node(
    name: str, *, pods: int = 10, cpu: str = "4", memory: str = "8Gi", ready: bool = True, pool: str = "local",
    unschedulable: bool = False,
) -> Node:  # fmt: skip
    return Node(
        metadata=ObjectMeta(name=name, labels={"nodeless.dev/pool": pool}),
        spec=NodeSpec(unschedulable=unschedulable),
        status=NodeStatus(
            allocatable={"pods": pods, "cpu": cpu, "memory": memory},
            conditions=(Condition(type="Ready", status="True" if ready else "Unknown"),),
        ),
    )
