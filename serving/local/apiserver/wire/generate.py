"""Makes `builtin.json` from checkouts of kubernetes/api and kubernetes/apimachinery.

python -m serving.local.apiserver.wire.generate API_DIR APIMACHINERY_DIR
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

_API = (
    "core/v1",
    "apps/v1",
    "authentication/v1",
    "authorization/v1",
    "admissionregistration/v1",
    "autoscaling/v1",
    "coordination/v1",
    "discovery/v1",
    "events/v1",
    "policy/v1",
    "rbac/v1",
)
_MACHINERY = (
    "pkg/apis/meta/v1",
    "pkg/runtime",
    "pkg/api/resource",
    "pkg/util/intstr",
)
_GROUPS = {
    "core": "",
    "authentication": "authentication.k8s.io",
    "authorization": "authorization.k8s.io",
    "admissionregistration": "admissionregistration.k8s.io",
    "coordination": "coordination.k8s.io",
    "discovery": "discovery.k8s.io",
    "events": "events.k8s.io",
    "rbac": "rbac.authorization.k8s.io",
}
_SCALARS = {"string", "bytes", "bool", "int32", "int64", "uint32", "uint64", "double"}
# Go embeds these structs, so JSON has no name for them.
_INLINE = {"volumeSource", "persistentVolumeSource", "handler", "ephemeralContainerCommon", "localObjectReference"}
_INLINE_IN = {("RuleWithOperations", "rule"), ("NamedRuleWithOperations", "ruleWithOperations")}
# The few whose JSON name differs from the field's.
_JSON_NAMES = {"Webhooks": "webhooks", "Expression": "expression", "Name": "name", "uID": "uid"}
_FIELD = re.compile(
    r"^\s*(optional|repeated)?\s*(?:map<string,\s*(\.?[\w.]+)>|(\.?[\w.]+))\s+(\w+)\s*=\s*(\d+)(?:\s*\[[^\]]*\])?;"
)


def main() -> None:
    api, machinery = (Path(argument) for argument in sys.argv[1:3])
    kinds: dict[str, str] = {}
    messages: dict[str, dict[str, list[Any]]] = {}
    for folder in _API:
        package, names = _read(api / folder / "generated.proto", messages)
        group, version = folder.split("/")
        group = _GROUPS.get(group, group)
        for name in names:
            fields = messages[f"{package}.{name}"].values()
            if any(field[0] == "metadata" and field[1].endswith(".ObjectMeta") for field in fields) or name in (
                "DeleteOptions",
            ):
                kinds[f"{group}/{version}/{name}" if group else f"{version}/{name}"] = f"{package}.{name}"
        options = "k8s.io.apimachinery.pkg.apis.meta.v1.DeleteOptions"
        for api_version in (f"{group}/{version}" if group else version, "meta.k8s.io/v1"):
            kinds[f"{api_version}/DeleteOptions"] = options
    for folder in _MACHINERY:
        _read(machinery / folder / "generated.proto", messages)
    target = Path(__file__).with_name("builtin.json")
    lines = [
        "{" + f'"kinds":{json.dumps(kinds, sort_keys=True, separators=(",", ":"))},"messages":' + "{",
        ",\n".join(
            f"{json.dumps(name)}:{json.dumps(fields, separators=(',', ':'))}"
            for name, fields in sorted(_needed(kinds, messages).items())
        ),
        "}}",
    ]
    target.write_text("\n".join(lines) + "\n")


def _needed(kinds: dict[str, str], messages: dict[str, dict[str, list[Any]]]) -> dict[str, dict[str, list[Any]]]:
    """The messages that some kind can hold."""
    found: dict[str, dict[str, list[Any]]] = {}
    waiting = list(kinds.values())
    while waiting:
        name = waiting.pop()
        if name in found or name not in messages:
            continue
        found[name] = messages[name]
        for field in messages[name].values():
            waiting += [part for part in (field[1], field[3] if len(field) > 3 else "") if part]
    return found


def _read(path: Path, messages: dict[str, dict[str, list[Any]]]) -> tuple[str, list[str]]:
    text = path.read_text()
    match = re.search(r"^package ([\w.]+);", text, re.M)
    if match is None:
        raise SystemExit(f"{path} has no package")
    package = match[1]
    names: list[str] = []
    current: dict[str, list[Any]] | None = None
    for line in text.splitlines():
        if started := re.match(r"^message (\w+) \{", line):
            names.append(started[1])
            current = messages[f"{package}.{started[1]}"] = {}
        elif line.startswith("}"):
            current = None
        elif current is not None and (field := _FIELD.match(line)):
            label, map_value, type_, name, number = field.groups()
            inline = name in _INLINE or (names[-1], name) in _INLINE_IN
            row: list[Any] = [
                _JSON_NAMES.get(name, name),
                _absolute(type_, package) if type_ else "",
                label == "repeated",
                _absolute(map_value, package) if map_value else "",
                inline and type_ is not None,
            ]
            while row[-1] in (False, ""):
                row.pop()
            current[number] = row
    return package, names


def _absolute(type_: str, package: str) -> str:
    if type_ in _SCALARS:
        return type_
    return type_[1:] if type_.startswith(".") else f"{package}.{type_}"


if __name__ == "__main__":
    main()
