"""Pods for tests, short to write."""

from __future__ import annotations

from typing import Any

import msgspec

from serving.api.meta import JsonObject
from serving.api.pod import Pod

NODE = "node-1"


def pod_json(name: str = "p", *, containers: list[JsonObject] | None = None, **spec: Any) -> JsonObject:
    """A pod bound to the test's node; one plain container unless told otherwise."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"},
        "spec": {
            "nodeName": NODE,
            "containers": containers if containers is not None else [container()],
            **spec,
        },
    }


def container(name: str = "app", **fields: Any) -> JsonObject:
    return {"name": name, "image": f"img-{name}", **fields}


def typed(item: JsonObject) -> Pod:
    return msgspec.convert(item, Pod)


def make_pod(name: str = "p", *, containers: list[JsonObject] | None = None, **spec: Any) -> Pod:
    return typed(pod_json(name, containers=containers, **spec))
