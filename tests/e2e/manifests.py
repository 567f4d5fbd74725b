"""Manifests of the tests' services."""

from __future__ import annotations

from typing import Any

from serving.api.meta import JsonObject

AUTOSCALING = "autoscaling.knative.dev"
STATIC = "dev.local/hello-static:latest"


def service(
    name: str,
    *,
    image: str = STATIC,
    annotations: dict[str, str] | None = None,
    window: str = "6s",
    env: dict[str, str] | None = None,
    container: JsonObject | None = None,
    spec: JsonObject | None = None,
    revision: str = "",
    traffic: list[JsonObject] | None = None,
) -> JsonObject:
    """A Service of one container. `window` is the stable window: 6 s, the least, scales to zero soon."""
    meta: dict[str, Any] = {"annotations": {f"{AUTOSCALING}/window": window, **(annotations or {})}}
    if revision:
        meta["name"] = revision
    listed = [{"name": key, "value": value} for key, value in (env or {}).items()]
    one = {"image": image, **({"env": listed} if listed else {}), **(container or {})}
    body: JsonObject = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": {"metadata": meta, "spec": {"containers": [one], **(spec or {})}}},
    }
    if traffic is not None:
        body["spec"]["traffic"] = traffic
    return body
