"""Kubernetes objects for tests, as JSON."""

from __future__ import annotations

from typing import Any

from serving.api.meta import JsonObject

NAMESPACE = "default"
DOMAIN = "example.test"


def route(
    name: str,
    traffic: dict[str, int],
    *,
    tags: dict[str, str] | None = None,
    created: str = "2026-01-01T00:00:00Z",
    url: str | None = None,
    namespace: str = NAMESPACE,
    uid: str | None = None,
) -> JsonObject:
    """A Route whose status says: percent by revision, revision by tag."""
    targets: list[dict[str, Any]] = [
        {"revisionName": revision, "percent": percent} for revision, percent in traffic.items()
    ]
    targets += [
        {
            "revisionName": revision,
            "percent": 0,
            "tag": tag,
            "url": f"http://{tag}-{name}.{namespace}.{DOMAIN}",
        }
        for tag, revision in (tags or {}).items()
    ]
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Route",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"uid-{name}",
            "creationTimestamp": created,
        },
        "spec": {},
        "status": {"url": url or f"http://{name}.{namespace}.{DOMAIN}", "traffic": targets},
    }


def revision(
    name: str,
    *,
    concurrency: int = 0,
    h2c: bool = False,
    timeout: int = 300,
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> JsonObject:
    port: JsonObject = {"containerPort": 8080}
    if h2c:
        port["name"] = "h2c"
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-{name}",
            "annotations": annotations or {},
        },
        "spec": {
            "containerConcurrency": concurrency,
            "timeoutSeconds": timeout,
            "containers": [{"name": "user-container", "image": "x", "ports": [port]}],
            **spec,
        },
    }


def pod(
    name: str,
    revision: str,
    *,
    port: int,
    ip: str = "127.0.0.1",
    ready: bool = False,
    draining: bool = False,
    deleted: bool = False,
    phase: str = "Running",
    revision_uid: str = "",
) -> JsonObject:
    annotations = {"nodeless.dev/port": str(port)}
    if draining:
        annotations["nodeless.dev/draining"] = "2026-01-01T00:00:00Z"
    meta: JsonObject = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": f"uid-{name}",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"serving.knative.dev/revision": revision},
        "annotations": annotations,
    }
    if revision_uid:
        meta["labels"]["serving.knative.dev/revisionUID"] = revision_uid
    if deleted:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {},
        "status": {
            "phase": phase,
            "podIP": ip,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }
