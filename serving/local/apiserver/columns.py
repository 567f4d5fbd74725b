"""The columns that kubectl shows for built-in kinds, as kube-apiserver computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver.columns_pod import pod_cells
from serving.local.apiserver.durations import age
from serving.local.apiserver.schemas.definitions import OBJECT_META, described

NONE: Final = "<none>"


class CellColumn(msgspec.Struct, frozen=True):
    """Priority 1 columns are shown by `-o wide`."""

    name: str
    type: str = "string"
    priority: int = 0
    described_by: tuple[str, str] = ("", "")
    """Definition and field whose description is the column's."""

    def definition(self) -> JsonObject:
        return {
            "name": self.name,
            "type": self.type,
            "format": "",
            "description": self._description(),
            "priority": self.priority,
        }

    def _description(self) -> str:
        if self.name in ("Age", "Created At"):
            return described(OBJECT_META, "creationTimestamp")
        definition, field = self.described_by
        return described(definition, field) if definition else self.name


class Printer(msgspec.Struct, frozen=True):
    """Columns after the name, and the function that fills them."""

    columns: tuple[CellColumn, ...]
    cells: Callable[[JsonObject, datetime], list[Any]]


_CORE: Final = "io.k8s.api.core.v1."


def _created(obj: JsonObject, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _spec(obj: JsonObject) -> JsonObject:
    return obj.get("spec") or {}


def _status(obj: JsonObject) -> JsonObject:
    return obj.get("status") or {}


def _columns(*names: str | CellColumn) -> tuple[CellColumn, ...]:
    return tuple(name if isinstance(name, CellColumn) else CellColumn(name) for name in names)


def _wide(*names: str) -> tuple[CellColumn, ...]:
    return tuple(CellColumn(name, "string", 1) for name in names)


def _plain(obj: JsonObject, now: datetime) -> list[Any]:
    return [_created(obj, now)]


def _namespace(obj: JsonObject, now: datetime) -> list[Any]:
    return [_status(obj).get("phase", ""), _created(obj, now)]


def _config_map(obj: JsonObject, now: datetime) -> list[Any]:
    return [len(obj.get("data") or {}) + len(obj.get("binaryData") or {}), _created(obj, now)]


def _secret(obj: JsonObject, now: datetime) -> list[Any]:
    return [obj.get("type", ""), len(obj.get("data") or {}), _created(obj, now)]


_INTERNAL_IP: Final = "InternalIP"


def _node(obj: JsonObject, now: datetime) -> list[Any]:
    status, info = _status(obj), _status(obj).get("nodeInfo") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    ready = conditions.get("Ready")
    words = ["Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"]
    if _spec(obj).get("unschedulable"):
        words.append("SchedulingDisabled")
    prefix = "node-role.kubernetes.io/"
    labels = obj["metadata"].get("labels") or {}
    roles = sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix) and key != prefix)
    addresses = {a.get("type"): a.get("address") for a in reversed(status.get("addresses") or [])}
    return [
        ",".join(words),
        ",".join(roles) or NONE,
        _created(obj, now),
        info.get("kubeletVersion", ""),
        addresses.get(_INTERNAL_IP) or NONE,
        addresses.get("ExternalIP") or NONE,
        info.get("osImage") or "<unknown>",
        info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


def _event(obj: JsonObject, now: datetime) -> list[Any]:
    involved = obj.get("involvedObject") or obj.get("regarding") or {}
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    component = source.get("component") or obj.get("reportingComponent") or obj.get("reportingController") or ""
    where = ", ".join(
        part for part in (component, source.get("host") or obj.get("reportingInstance") or "") if part
    )
    series = obj.get("series") or {}
    first = obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp") or obj.get("eventTime")
    last = (
        series.get("lastObservedTime") or obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp") or first
    )
    count = series.get("count") or obj.get("count") or obj.get("deprecatedCount") or 1
    kind, name = str(involved.get("kind", "")).lower(), involved.get("name", "")
    return [
        age(last, now),
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{kind}/{name}" if name else kind,
        involved.get("fieldPath", ""),
        where,
        str(obj.get("message") or obj.get("note") or "").strip(),
        age(first, now),
        count,
        obj["metadata"]["name"],
    ]


def _service(obj: JsonObject, now: datetime) -> list[Any]:
    spec = _spec(obj)
    ports = ",".join(
        f"{port.get('port')}:{port['nodePort']}/{port.get('protocol', 'TCP')}"
        if port.get("nodePort")
        else f"{port.get('port')}/{port.get('protocol', 'TCP')}"
        for port in spec.get("ports") or ()
    )
    return [
        spec.get("type", "ClusterIP"),
        spec.get("clusterIP") or NONE,
        _external(obj, spec),
        ports or NONE,
        _created(obj, now),
        _labels(spec.get("selector")),
    ]


def _external(obj: JsonObject, spec: JsonObject) -> str:
    listed = list(spec.get("externalIPs") or ())
    match spec.get("type"):
        case "ExternalName":
            return str(spec.get("externalName", ""))
        case "LoadBalancer":
            ingress = (_status(obj).get("loadBalancer") or {}).get("ingress") or ()
            listed = [entry.get("ip") or entry.get("hostname") for entry in ingress] + listed
            return ",".join(filter(None, listed)) or "<pending>"
    return ",".join(listed) or NONE


def _labels(labels: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE


def _lease(obj: JsonObject, now: datetime) -> list[Any]:
    return [_spec(obj).get("holderIdentity", ""), _created(obj, now)]


def _crd(obj: JsonObject, _now: datetime) -> list[Any]:
    return [obj["metadata"].get("creationTimestamp", "")]


def _endpoints(obj: JsonObject, now: datetime) -> list[Any]:
    found = [
        f"{address.get('ip')}:{port.get('port')}"
        for subset in obj.get("subsets") or ()
        for port in subset.get("ports") or ({"port": 0},)
        for address in subset.get("addresses") or ()
    ]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return [(",".join(found[:3]) or NONE) + more, _created(obj, now)]


def _endpoint_slice(obj: JsonObject, now: datetime) -> list[Any]:
    ports = [str(port.get("port") or "*") for port in obj.get("ports") or ()]
    addresses = [address for endpoint in obj.get("endpoints") or () for address in endpoint.get("addresses") or ()]
    return [obj.get("addressType", ""), _some(ports), _some(addresses), _created(obj, now)]


def _some(items: list[str]) -> str:
    more = f" + {len(items) - 3} more..." if len(items) > 3 else ""
    return (",".join(items[:3]) or "<unset>") + more


def _deployment(obj: JsonObject, now: datetime) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    containers = ((spec.get("template") or {}).get("spec") or {}).get("containers") or ()
    return [
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        _created(obj, now),
        ",".join(container.get("name", "") for container in containers),
        ",".join(container.get("image", "") for container in containers),
        _labels((spec.get("selector") or {}).get("matchLabels")),
    ]


def _pdb(obj: JsonObject, now: datetime) -> list[Any]:
    spec = _spec(obj)
    return [
        str(spec.get("minAvailable", "N/A")),
        str(spec.get("maxUnavailable", "N/A")),
        _status(obj).get("disruptionsAllowed", 0),
        _created(obj, now),
    ]


def _hooks(obj: JsonObject, now: datetime) -> list[Any]:
    return [len(obj.get("webhooks") or ()), _created(obj, now)]


def _role(obj: JsonObject, _now: datetime) -> list[Any]:
    return [obj["metadata"].get("creationTimestamp", "")]


def _binding(obj: JsonObject, now: datetime) -> list[Any]:
    reference = obj.get("roleRef") or {}
    subjects = obj.get("subjects") or ()

    def named(kind: str) -> str:
        chosen = [subject for subject in subjects if subject.get("kind") == kind]
        names = [
            f"{subject.get('namespace')}/{subject.get('name')}"
            if kind == "ServiceAccount"
            else subject.get("name", "")
            for subject in chosen
        ]
        return ", ".join(names)

    role = f"{reference.get('kind', '')}/{reference.get('name', '')}"
    return [role, _created(obj, now), named("User"), named("Group"), named("ServiceAccount")]


_INT = "integer"
_ROLE = Printer(_columns(CellColumn("Created At", "date")), _role)
_BINDING = Printer((*_columns("Role", "Age"), *_wide("Users", "Groups", "ServiceAccounts")), _binding)
_HOOKS = Printer(_columns(CellColumn("Webhooks", _INT), "Age"), _hooks)
_RBAC: Final = "rbac.authorization.k8s.io"
_ADMISSION: Final = "webhookconfigurations.admissionregistration.k8s.io"

PRINTERS: Final[Mapping[str, Printer]] = {
    "": Printer(_columns("Age"), _plain),
    "pods": Printer(
        (
            *_columns("Ready", "Status", "Restarts", "Age"),
            *_wide("IP", "Node", "Nominated Node", "Readiness Gates"),
        ),
        pod_cells,
    ),
    "namespaces": Printer(_columns("Status", "Age"), _namespace),
    "configmaps": Printer(
        _columns(CellColumn("Data", described_by=(_CORE + "ConfigMap", "data")), "Age"), _config_map
    ),
    "secrets": Printer(
        _columns(
            CellColumn("Type", described_by=(_CORE + "Secret", "type")),
            CellColumn("Data", described_by=(_CORE + "Secret", "data")),
            "Age",
        ),
        _secret,
    ),
    "nodes": Printer(
        (
            *_columns("Status", "Roles", "Age", "Version"),
            *_wide("Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime"),
        ),
        _node,
    ),
    "events": Printer(
        (
            *_columns("Last Seen", "Type", "Reason", "Object"),
            *_wide("Subobject", "Source"),
            CellColumn("Message"),
            *_wide("First Seen"),
            CellColumn("Count", _INT, 1),
            CellColumn("Name", "string", 1),
        ),
        _event,
    ),
    "services": Printer(
        (*_columns("Type", "Cluster-IP", "External-IP", "Port(s)", "Age"), *_wide("Selector")), _service
    ),
    "leases.coordination.k8s.io": Printer(_columns("Holder", "Age"), _lease),
    "customresourcedefinitions.apiextensions.k8s.io": Printer(_columns(CellColumn("Created At", "date")), _crd),
    "endpoints": Printer(_columns("Endpoints", "Age"), _endpoints),
    "endpointslices.discovery.k8s.io": Printer(
        _columns("AddressType", "Ports", "Endpoints", "Age"), _endpoint_slice
    ),
    "deployments.apps": Printer(
        (
            *_columns("Ready", "Up-to-date", "Available", "Age"),
            *_wide("Containers", "Images", "Selector"),
        ),
        _deployment,
    ),
    "poddisruptionbudgets.policy": Printer(
        _columns("Min Available", "Max Unavailable", CellColumn("Allowed Disruptions", _INT), "Age"), _pdb
    ),
    f"mutating{_ADMISSION}": _HOOKS,
    f"validating{_ADMISSION}": _HOOKS,
    f"roles.{_RBAC}": _ROLE,
    f"clusterroles.{_RBAC}": _ROLE,
    f"rolebindings.{_RBAC}": _BINDING,
    f"clusterrolebindings.{_RBAC}": _BINDING,
}
