"""Short makers of the values that the tests are about."""

from __future__ import annotations

from typing import Any

from serving.activator.holds import Hold
from serving.activator.model import PodEndpoint, RevisionConfig

KEY = "default/hello-00001"


def config(**given: Any) -> RevisionConfig:
    values: dict[str, Any] = {
        "key": KEY,
        "uid": "revision-uid",
        "container_concurrency": 0,
        "timeout_seconds": 30.0,
        "response_start_timeout_seconds": None,
        "h2c": False,
        "readiness": None,
        "port": 8080,
    }
    return RevisionConfig(**(values | given))


def pod(uid: str = "a", address: str = "10.0.0.1:8080", **given: Any) -> PodEndpoint:
    values: dict[str, Any] = {
        "uid": uid,
        "name": f"hello-00001-deployment-{uid}",
        "address": address,
        "draining": False,
        "terminating": False,
        "kube_ready": False,
        "created_at": 0.0,
        "stages": {},
    }
    return PodEndpoint(**(values | given))


def hold(name: str, *, started: float = 0.0, arrived: float | None = None, request_id: str = "") -> Hold:
    return Hold(
        id=name,
        token=hash(name) & 0xFFFF_FFFF,
        request_id=request_id or f"request-{name}",
        started=started,
        arrived=started if arrived is None else arrived,
    )
