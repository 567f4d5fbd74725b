"""Makes `definitions.json.gz` from the OpenAPI v3 files of a checkout of kubernetes/kubernetes.

python -m serving.local.apiserver.schemas.generate KUBERNETES_DIR

Source: `api/openapi-spec/v3` of https://github.com/kubernetes/kubernetes (Apache-2.0), release 1.36. Kept are the
definitions that a served kind can hold, as they are: descriptions for `kubectl explain`, list types and merge keys
for the patches.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

from serving.local.apiserver.builtin import BUILTIN

_PREFIX = "#/components/schemas/"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_ALWAYS = (
    *(_META + name for name in ("APIGroup", "APIGroupList", "APIResourceList", "DeleteOptions", "ListMeta")),
    *(_META + name for name in ("ObjectMeta", "Patch", "Status", "WatchEvent")),
)
_VERSION = "1.36"
_EXTRA = {
    ("autoscaling", "v1", "Scale"),
    ("policy", "v1", "Eviction"),
    ("", "v1", "Binding"),
    ("authentication.k8s.io", "v1", "TokenRequest"),
}


def main() -> None:
    folder = Path(sys.argv[1]) / "api/openapi-spec/v3"
    wanted = {(kind.group, kind.version, kind.kind) for kind in BUILTIN} | _EXTRA
    wanted |= {(kind.group, kind.version, kind.list_kind) for kind in BUILTIN if "list" in kind.verbs}
    everything: dict[str, Any] = {}
    kinds: dict[str, str] = {}
    for group, version in sorted({item[:2] for item in wanted}):
        name = f"apis__{group}__{version}_openapi.json" if group else f"api__{version}_openapi.json"
        found = json.loads((folder / name).read_text())["components"]["schemas"]
        everything |= found
        for definition, schema in found.items():
            for gvk in schema.get("x-kubernetes-group-version-kind") or ():
                if (gvk["group"], gvk["version"], gvk["kind"]) in wanted:
                    parts = (gvk["group"], gvk["version"], gvk["kind"])
                    kinds["/".join(part for part in parts if part)] = definition
    kept: dict[str, Any] = {}
    waiting = [*kinds.values(), *_ALWAYS]
    while waiting:
        name = waiting.pop()
        if name not in kept and name in everything:
            kept[name] = everything[name]
            waiting += _references(everything[name])
    data = {"release": _VERSION, "kinds": kinds, "definitions": kept}
    text = json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
    Path(__file__).with_name("definitions.json.gz").write_bytes(gzip.compress(text, 9, mtime=0))


def _references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [name for item in value for name in _references(item)]
    if not isinstance(value, dict):
        return []
    found = [name for item in value.values() for name in _references(item)]
    if isinstance(reference := value.get("$ref"), str):
        found.append(reference.removeprefix(_PREFIX))
    return found


if __name__ == "__main__":
    main()
