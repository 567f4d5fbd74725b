"""Objects that must be refused: those of the validators' own table, and some that only a whole API server sees.

The table of the validators (tests/api/testdata) says what is sent; what a cluster answers is in recorded.jsonl.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from serving.api.meta import JsonObject
from tests.api.support import VERSIONS, case_object, case_old, golden

NAMESPACE: Final = "bad-input"
EXTRA: Final = Path(__file__).parent / "cases.yaml"
PLURALS: Final = {
    "Service": "services",
    "Configuration": "configurations",
    "Revision": "revisions",
    "Route": "routes",
    "DomainMapping": "domainmappings",
}
CREATE: Final = "create"
UPDATE: Final = "update"
_POD: Final = {"containers": [{"image": "busybox"}]}
_NAMES: Final = {
    "Service": ("svc",),
    "Configuration": ("svc", "cfg"),
    "Revision": ("rev",),
    "Route": ("rt",),
    "DomainMapping": ("shop.example.com",),
}
"""With these names there can be a valid object to update."""
_SPECS: Final[dict[str, JsonObject]] = {
    "Service": {"template": {"spec": _POD}},
    "Configuration": {"template": {"spec": _POD}},
    "Revision": _POD,
    "Route": {"traffic": [{"configurationName": "cfg", "percent": 100}]},
    "DomainMapping": {"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "svc"}},
}


@dataclass(frozen=True, slots=True)
class Case:
    """`body` is sent; on an update over `before`, which is stored first."""

    name: str
    on: str
    body: JsonObject
    before: JsonObject | None
    config: dict[str, dict[str, str]]

    @property
    def collection(self) -> str:
        plural = PLURALS[self.body["kind"]]
        return f"/apis/{self.body['apiVersion']}/namespaces/{NAMESPACE}/{plural}"

    def __str__(self) -> str:
        return f"{self.on}: {self.name}"


def cases() -> list[Case]:
    """Sorted by configuration, so that it changes seldom."""
    listed = [*golden("invalid.yaml"), *yaml.safe_load(EXTRA.read_text())]
    found = [case for item in listed for case in _of(item)]
    return sorted(found, key=lambda case: str(case.config))


def config_map_cases() -> list[dict[str, Any]]:
    """Data of ConfigMaps that is refused."""
    return [item for item in golden("config_maps.yaml") if item["error"]]


def _of(item: dict[str, Any]) -> list[Case]:
    body, before, config = case_object(item), case_old(item), item.get("config") or {}
    if before is not None:
        return [Case(item["name"], UPDATE, body, before, config)]
    created = Case(item["name"], CREATE, body, None, config)
    name = body["metadata"].get("name") if isinstance(body["metadata"], dict) else None
    base = _base(body["kind"], name)
    if base is None:
        return [created]
    return [created, Case(item["name"], UPDATE, body, base, config)]


def _base(kind: str, name: Any) -> JsonObject | None:
    """A valid object of that name, if there can be one."""
    if name not in _NAMES[kind]:
        return None
    version = VERSIONS.get(kind, "serving.knative.dev/v1")
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": copy.deepcopy(_SPECS[kind])}


def changed(stored: JsonObject, body: JsonObject) -> JsonObject:
    """What a client sends that read the object and changed it: annotations and labels are added."""
    wanted = copy.deepcopy(body)
    metadata = wanted["metadata"]
    for key in ("annotations", "labels"):
        if isinstance(metadata.get(key, {}), dict):
            merged = {**(stored["metadata"].get(key) or {}), **(metadata.get(key) or {})}
            if merged:
                metadata[key] = merged
    metadata["resourceVersion"] = stored["metadata"]["resourceVersion"]
    return wanted
