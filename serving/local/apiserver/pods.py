"""Defaults and rules of Pods, as kube-apiserver applies them."""

from __future__ import annotations

import re
from typing import Any, Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors
from serving.local.apiserver.errors import Cause
from serving.local.apiserver.meta import DNS_LABEL_TEXT
from serving.local.apiserver.podspec import CONTAINER_LISTS, default_pod_spec

_CONTAINER_LISTS: Final = CONTAINER_LISTS
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_MUTABLE: Final = (
    "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
    "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def default_pod(pod: JsonObject) -> None:
    """In place."""
    spec = pod.get("spec")
    if not isinstance(spec, dict):
        return
    default_pod_spec(spec)
    for field in CONTAINER_LISTS:
        for container in spec.get(field) or ():
            _request_limits(container)
    spec.setdefault("enableServiceLinks", True)
    status = pod.setdefault("status", {})
    status.setdefault("phase", "Pending")
    status.setdefault("qosClass", qos_class(spec))


def _request_limits(container: object) -> None:
    """What has a limit and no request requests its limit."""
    resources = container.get("resources") if isinstance(container, dict) else None
    if isinstance(resources, dict) and resources.get("limits"):
        resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}


def qos_class(spec: JsonObject) -> str:
    """Guaranteed, Burstable or BestEffort."""
    containers = [c for field in _CONTAINER_LISTS for c in spec.get(field) or () if isinstance(c, dict)]
    resources = [container.get("resources") or {} for container in containers]
    if not any(entry.get("requests") or entry.get("limits") for entry in resources):
        return "BestEffort"
    for entry in resources:
        limits, requests = entry.get("limits") or {}, entry.get("requests") or {}
        if not {"cpu", "memory"} <= set(limits) or any(requests.get(k, v) != v for k, v in limits.items()):
            return "Burstable"
    return "Guaranteed"


def pod_causes(pod: JsonObject) -> list[Cause]:
    spec = pod.get("spec")
    if not isinstance(spec, dict):
        return [errors.required("spec.containers")]
    causes: list[Cause] = []
    if not spec.get("containers"):
        causes.append(errors.required("spec.containers"))
    names: set[str] = set()
    for field in _CONTAINER_LISTS:
        for index, container in enumerate(spec.get(field) or ()):
            causes += _container_causes(container, f"spec.{field}[{index}]", names)
    if spec.get("restartPolicy") not in ("Always", "OnFailure", "Never"):
        allowed = ("Always", "OnFailure", "Never")
        causes.append(errors.not_supported("spec.restartPolicy", spec.get("restartPolicy"), allowed))
    grace = spec.get("terminationGracePeriodSeconds")
    if isinstance(grace, int) and grace < 0:
        detail = "must be greater than or equal to 0"
        causes.append(errors.invalid_value("spec.terminationGracePeriodSeconds", grace, detail))
    causes += _volume_causes(spec)
    return causes


def _container_causes(container: Any, path: str, names: set[str]) -> list[Cause]:
    causes: list[Cause] = []
    name = container.get("name") or ""
    if not name:
        causes.append(errors.required(f"{path}.name"))
    elif not _NAME.fullmatch(name) or len(name) > 63:
        causes.append(errors.invalid_value(f"{path}.name", name, DNS_LABEL_TEXT))
    elif name in names:
        causes.append(errors.duplicate_value(f"{path}.name", name))
    names.add(name)
    if not container.get("image"):
        causes.append(errors.required(f"{path}.image"))
    for index, port in enumerate(container.get("ports") or ()):
        number = port.get("containerPort")
        if not isinstance(number, int) or not 1 <= number <= 65535:
            field = f"{path}.ports[{index}].containerPort"
            if number in (None, 0):
                causes.append(errors.required(field))
            else:
                causes.append(errors.invalid_value(field, number, "must be between 1 and 65535, inclusive"))
    return causes


def _volume_causes(spec: JsonObject) -> list[Cause]:
    causes: list[Cause] = []
    volumes = [volume.get("name") for volume in spec.get("volumes") or ()]
    for index, name in enumerate(volumes):
        if name in volumes[:index]:
            causes.append(errors.duplicate_value(f"spec.volumes[{index}].name", name))
    for field in _CONTAINER_LISTS:
        for index, container in enumerate(spec.get(field) or ()):
            for at, mount in enumerate(container.get("volumeMounts") or ()):
                if mount.get("name") not in volumes:
                    path = f"spec.{field}[{index}].volumeMounts[{at}].name"
                    causes.append(Cause(path, "FieldValueNotFound", f'Not found: "{mount.get("name")}"'))
    return causes


def pod_update_causes(new: JsonObject, old: JsonObject, *, binding: bool) -> list[Cause]:
    """A Pod's spec is fixed but for a few fields; `binding` also sets nodeName."""
    before, after = _fixed(old.get("spec") or {}), _fixed(new.get("spec") or {})
    if binding:
        before["nodeName"] = after.get("nodeName")
    if before == after:
        return []
    return [Cause("spec", "FieldValueForbidden", _MUTABLE.removeprefix("spec: "))]


def _fixed(spec: JsonObject) -> JsonObject:
    fixed = {
        name: value
        for name, value in spec.items()
        if name not in ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds")
    }
    for field in (*_CONTAINER_LISTS, "ephemeralContainers"):
        fixed[field] = [
            {name: value for name, value in container.items() if name != "image"}
            for container in spec.get(field) or ()
        ]
    return fixed
