"""Defaults of a pod's spec, also of the one in a template."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from serving.api.meta import JsonObject
from serving.api.quantity import QuantityError
from serving.local.apiserver.errors import Undecodable
from serving.local.apiserver.podvalidation.quantities import UNREADABLE, canonical, canonical_all

CONTAINER_LISTS: Final = ("initContainers", "containers", "ephemeralContainers")
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_WITH_MODE: Final = ("configMap", "secret", "projected", "downwardAPI")
_POD: Final = (
    ("restartPolicy", "Always"),
    ("terminationGracePeriodSeconds", 30),
    ("dnsPolicy", "ClusterFirst"),
    ("schedulerName", "default-scheduler"),
)
_PROBE: Final = (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3))
_TOKEN_SECONDS: Final = 3600


def default_pod_spec(spec: JsonObject, kind: str = "Pod", version: str = "v1") -> None:
    """In place. Raises Undecodable for a quantity that cannot be read; `kind` is that of the whole object."""
    try:
        _default_pod_spec(spec)
    except QuantityError as error:
        raise Undecodable(kind, version, UNREADABLE) from error


def _default_pod_spec(spec: JsonObject) -> None:
    for name, value in _POD:
        spec.setdefault(name, value)
    spec.setdefault("securityContext", {})
    if account := spec.get("serviceAccountName"):
        spec.setdefault("serviceAccount", account)
    elif account := spec.get("serviceAccount"):
        spec["serviceAccountName"] = account
    for field in CONTAINER_LISTS:
        for container in _objects(spec.get(field)):
            _default_container(container)
    if spec.get("hostNetwork") is True:
        _default_host_ports(spec)
    for volume in _objects(spec.get("volumes")):
        _default_volume(volume)
    canonical_all(spec.get("overhead"))
    for constraint in _objects(spec.get("topologySpreadConstraints")):
        constraint.setdefault("maxSkew", 1)


def _objects(items: object) -> Iterator[JsonObject]:
    return (item for item in items if isinstance(item, dict)) if isinstance(items, list) else iter(())


def _default_container(container: JsonObject) -> None:
    container.setdefault("imagePullPolicy", _pull_policy(str(container.get("image") or "")))
    resources = container.setdefault("resources", {})
    for name in ("limits", "requests"):
        canonical_all(resources.get(name))
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    for port in _objects(container.get("ports")):
        port.setdefault("protocol", "TCP")
    for variable in _objects(container.get("env")):
        _default_field_reference(variable.get("valueFrom"))
    for name in _PROBES:
        if isinstance(container.get(name), dict):
            _default_probe(container[name])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict) and isinstance(hook.get("httpGet"), dict):
            _default_http(hook["httpGet"])


def _default_field_reference(source: Any) -> None:
    if isinstance(source, dict) and isinstance(source.get("fieldRef"), dict):
        source["fieldRef"].setdefault("apiVersion", "v1")
    if isinstance(source, dict) and isinstance(source.get("resourceFieldRef"), dict):
        reference = source["resourceFieldRef"]
        reference["divisor"] = canonical(reference.get("divisor") or "0")


def _default_probe(probe: JsonObject) -> None:
    for name, value in _PROBE:
        if not probe.get(name):
            probe[name] = value
    if isinstance(probe.get("httpGet"), dict):
        _default_http(probe["httpGet"])
    if isinstance(probe.get("grpc"), dict):
        probe["grpc"].setdefault("service", "")


def _default_http(action: JsonObject) -> None:
    action.setdefault("path", "/")
    action.setdefault("scheme", "HTTP")


def _default_host_ports(spec: JsonObject) -> None:
    for field in CONTAINER_LISTS:
        for container in _objects(spec.get(field)):
            for port in _objects(container.get("ports")):
                port.setdefault("hostPort", port.get("containerPort"))


def _default_volume(volume: JsonObject) -> None:
    if set(volume) <= {"name"}:
        volume["emptyDir"] = {}
    if (volume.get("emptyDir") or {}).get("sizeLimit") is not None:
        volume["emptyDir"]["sizeLimit"] = canonical(volume["emptyDir"]["sizeLimit"])
    for field in _WITH_MODE:
        if isinstance(volume.get(field), dict):
            volume[field].setdefault("defaultMode", 420)
    if isinstance(volume.get("hostPath"), dict):
        volume["hostPath"].setdefault("type", "")
    for item in _objects((volume.get("downwardAPI") or {}).get("items")):
        _default_field_reference(item)
    for source in _objects((volume.get("projected") or {}).get("sources")):
        for item in _objects((source.get("downwardAPI") or {}).get("items")):
            _default_field_reference(item)
        if isinstance(source.get("serviceAccountToken"), dict):
            source["serviceAccountToken"].setdefault("expirationSeconds", _TOKEN_SECONDS)


def _pull_policy(image: str) -> str:
    last = image.rsplit("/", 1)[-1]
    if "@" in last:
        return "IfNotPresent"
    return "IfNotPresent" if ":" in last and not last.endswith(":latest") else "Always"
