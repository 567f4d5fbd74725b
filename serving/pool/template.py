"""The Pod of a Revision.

The Revision's pod spec is copied as raw JSON, so that fields which nodeless does not know reach the pod; only
what the runtime contract demands is set. There is no sidecar: the gateway counts, limits and drains from outside.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from serving.api import keys
from serving.api.meta import JsonObject
from serving.api.names import child_name
from serving.api.quantity import parse_milli, parse_quantity
from serving.api.v1 import Revision, RevisionSpec

TIMEOUT_DEFAULT: Final = 300
APP: Final = "app"
SUFFIX_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' own: no vowels, nothing that looks like something else."""
SUFFIX_LENGTH: Final = 8
SUFFIX_SPACE: Final = len(SUFFIX_ALPHABET) ** SUFFIX_LENGTH

_KNATIVE_FIELDS: Final = (
    "containerConcurrency",
    "timeoutSeconds",
    "responseStartTimeoutSeconds",
    "idleTimeoutSeconds",
)
_LABELS_LEFT_OUT: Final = frozenset({keys.ROUTE, keys.ROUTING_STATE})
_ANNOTATIONS_LEFT_OUT: Final = frozenset(
    {
        keys.ROUTES,
        keys.ROUTING_STATE_MODIFIED,
        keys.LAST_APPLIED,
        keys.DRAINING,
        keys.POD_PORT,
        keys.STAGES,
        keys.SANDBOX,
    }
)
_PROBES: Final = ("readinessProbe", "livenessProbe", "startupProbe")


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where a pod runs, as far as its manifest says so. Empty fields leave the choice to the platform."""

    node_name: str = ""
    scheduler_name: str = ""
    runtime_class_name: str = ""
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    node_selector: Mapping[str, str] = {}
    tolerations: tuple[JsonObject, ...] = ()
    cpu_millis: int | None = None
    """Size of the whole pod; the serving container gets what the others leave, as request and as limit. None:
    what the Revision asks for."""
    memory_mib: int | None = None
    most_grace_seconds: int | None = None
    """Longest termination grace that the platform keeps."""


def pod_name(revision_name: str, suffix: str) -> str:
    """`<revision>-deployment-<suffix>`, at most 63 characters: tools look for that."""
    return child_name(revision_name, f"-deployment-{suffix}")


def suffix_of(number: int) -> str:
    """A name suffix for a number in [0, SUFFIX_SPACE); the shell draws it at random."""
    letters = []
    for _ in range(SUFFIX_LENGTH):
        number, index = divmod(number, len(SUFFIX_ALPHABET))
        letters.append(SUFFIX_ALPHABET[index])
    return "".join(letters)


def pod_for(revision: Revision, *, suffix: str, placement: Placement, runtime_class_name: str = "") -> JsonObject:
    """Manifest of one pod of the revision.

    `runtime_class_name` is the cluster's default; the revision's own and the placement's win over it. Raises
    msgspec.ValidationError or ValueError for a revision that admission would have refused.
    """
    view = revision.view()
    serving_name = view.serving_container().name
    spec = {key: value for key, value in copy.deepcopy(revision.spec).items() if key not in _KNATIVE_FIELDS}
    digests = {entry.name: entry.image_digest for entry in revision.status.container_statuses}
    init_digests = {entry.name: entry.image_digest for entry in revision.status.init_container_statuses}
    spec["containers"] = [
        _container(raw, revision, view, serving=raw.get("name", "") == serving_name, digests=digests)
        for raw in spec.get("containers", [])
    ]
    if spec.get("initContainers"):
        spec["initContainers"] = [_with_digest(raw, init_digests) for raw in spec["initContainers"]]
    spec["restartPolicy"] = "Always"
    grace = timeout_seconds(view)
    spec["terminationGracePeriodSeconds"] = min(grace, placement.most_grace_seconds or grace)
    _place(spec, placement, runtime_class_name)
    _size(spec, placement, serving_name)
    name = revision.metadata.name
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(name, suffix),
            "namespace": revision.metadata.namespace,
            "labels": {**_labels(revision), **placement.labels},
            "annotations": {**_annotations(revision, serving_name), **placement.annotations},
            "ownerReferences": [
                {
                    "apiVersion": f"{keys.SERVING_GROUP}/v1",
                    "kind": "Revision",
                    "name": name,
                    "uid": revision.metadata.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": spec,
    }


def timeout_seconds(view: RevisionSpec) -> int:
    """How long a request of the revision may take, and so how long a drain may."""
    return view.timeout_seconds or TIMEOUT_DEFAULT


def _labels(revision: Revision) -> dict[str, str]:
    labels = {key: value for key, value in revision.metadata.labels.items() if key not in _LABELS_LEFT_OUT}
    labels[keys.REVISION] = revision.metadata.name
    labels[keys.REVISION_UID] = revision.metadata.uid
    labels.setdefault(APP, revision.metadata.name)
    return labels


def _annotations(revision: Revision, serving_name: str) -> dict[str, str]:
    annotations = {
        key: value
        for key, value in revision.metadata.annotations.items()
        if key not in _ANNOTATIONS_LEFT_OUT and not key.startswith(f"{keys.AUTOSCALING_GROUP}/")
    }
    annotations.setdefault(keys.DEFAULT_CONTAINER, serving_name)
    # An evicted pod is drained like any other, so a node may be emptied.
    annotations.setdefault(keys.SAFE_TO_EVICT, "true")
    annotations[keys.AWAIT_DRAIN] = "true"
    return annotations


def _container(
    raw: JsonObject, revision: Revision, view: RevisionSpec, *, serving: bool, digests: Mapping[str, str]
) -> JsonObject:
    container = _with_digest(raw, digests)
    if not container.get("terminationMessagePolicy"):
        container["terminationMessagePolicy"] = "FallbackToLogsOnError"
    port = view.serving_port().container_port
    reserved = {
        "K_REVISION": revision.metadata.name,
        "K_CONFIGURATION": revision.metadata.labels.get(keys.CONFIGURATION, ""),
        "K_SERVICE": revision.metadata.labels.get(keys.SERVICE, ""),
    }
    if serving:
        reserved["PORT"] = str(port)
        container["ports"] = [_port(raw, port)]
        container.setdefault("readinessProbe", {"tcpSocket": {"port": port}, "successThreshold": 1})
    for probe in _PROBES:
        if container.get(probe):
            container[probe] = _probe(container[probe], port if serving else 0)
    # Last, because with equal names the last one counts.
    user_env = [entry for entry in container.get("env") or [] if entry.get("name") not in reserved]
    container["env"] = user_env + [{"name": name, "value": value} for name, value in reserved.items()]
    return container


def _with_digest(raw: JsonObject, digests: Mapping[str, str]) -> JsonObject:
    digest = digests.get(raw.get("name", ""))
    return {**raw, "image": digest} if digest else dict(raw)


def _port(raw: JsonObject, number: int) -> JsonObject:
    declared: JsonObject = (raw.get("ports") or [{}])[0]
    name = declared.get("name") or "user-port"
    return {"protocol": "TCP", **declared, "name": name, "containerPort": number}


def _probe(probe: JsonObject, port: int) -> JsonObject:
    """The user's probe; a handler without a port (or port 0) means the serving port."""
    filled = dict(probe)
    for handler in ("httpGet", "tcpSocket", "grpc"):
        action: Any = filled.get(handler)
        if isinstance(action, dict) and not action.get("port") and port:
            filled[handler] = {**action, "port": port}
    # Knative gives a readiness probe to its sidecar, so any spelling works there; Kubernetes knows HTTP and HTTPS.
    web: Any = filled.get("httpGet")
    if isinstance(web, dict) and isinstance(web.get("scheme"), str):
        filled["httpGet"] = {**web, "scheme": web["scheme"].upper()}
    return filled


def _place(spec: JsonObject, placement: Placement, runtime_class_name: str) -> None:
    if placement.node_name:
        spec["nodeName"] = placement.node_name
    if placement.scheduler_name:
        spec["schedulerName"] = placement.scheduler_name
    runtime_class = placement.runtime_class_name or spec.get("runtimeClassName") or runtime_class_name
    if runtime_class:
        spec["runtimeClassName"] = runtime_class
    if placement.node_selector:
        spec["nodeSelector"] = {**(spec.get("nodeSelector") or {}), **placement.node_selector}
    if placement.tolerations:
        spec["tolerations"] = [*(spec.get("tolerations") or []), *placement.tolerations]


def _size(spec: JsonObject, placement: Placement, serving_name: str) -> None:
    """Give the serving container what is left of the instance. Raises ValueError when the others need it all."""
    wanted = (("cpu", placement.cpu_millis, parse_milli, "m"), ("memory", placement.memory_mib, _mib, "Mi"))
    for resource, whole, parse, unit in wanted:
        if whole is None:
            continue
        left = whole
        serving: JsonObject = {}
        for container in spec["containers"]:
            resources = container.get("resources") or {}
            if container.get("name", "") == serving_name:
                serving = container
                continue
            asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}.get(resource, 0)
            left -= parse(asked)
        if left <= 0:
            raise ValueError(f"{resource}: the other containers take all of {whole}{unit}")
        resources = dict(serving.get("resources") or {})
        for kind in ("requests", "limits"):
            resources[kind] = {**(resources.get(kind) or {}), resource: f"{left}{unit}"}
        serving["resources"] = resources


def _mib(quantity: str | int | float) -> int:
    return math.ceil(parse_quantity(quantity) / 2**20)
