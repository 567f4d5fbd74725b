"""Environment variables of a container, and fields of the Pod that files and variables refer to. Pure."""

from __future__ import annotations

import re
from typing import Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors, identifiers
from serving.local.apiserver.errors import Cause
from serving.local.apiserver.podvalidation.paths import without_backsteps
from serving.local.apiserver.podvalidation.quantities import canonical

_POD_FIELDS: Final = ("metadata.name", "metadata.namespace", "metadata.uid")
VARIABLE_FIELDS: Final = (
    *_POD_FIELDS,
    "spec.nodeName",
    "spec.serviceAccountName",
    *("status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"),
)
VOLUME_FIELDS: Final = ("metadata.annotations", "metadata.labels", *_POD_FIELDS)
_KNOWN_FIELDS: Final = frozenset(
    {*VARIABLE_FIELDS, *VOLUME_FIELDS, "spec.restartPolicy", "spec.schedulerName", "status.phase", "spec.host"}
)
_RESOURCES: Final = tuple(
    f"{list_}.{name}" for list_ in ("limits", "requests") for name in ("cpu", "ephemeral-storage", "memory")
)
_HUGE: Final = ("requests.hugepages-", "limits.hugepages-")
_SUBSCRIPT: Final = re.compile(r"(.*)\['(.*)'\]", re.DOTALL)
_SIZES: Final = ("1", *(f"1{letter}" for letter in "kMGTPE"), *(f"1{letter}i" for letter in "KMGTPE"))
_SOURCES: Final = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_LARGE_TEXT: Final = f"only divisor's values {', '.join(_SIZES)} are supported with the %s resource"


def variable_causes(variables: list[JsonObject], field: str) -> list[Cause]:
    """Of a container's `env`."""
    found: list[Cause] = []
    for index, variable in enumerate(variables):
        name, source = variable.get("name") or "", variable.get("valueFrom")
        if not name:
            found.append(errors.required(f"{field}[{index}].name"))
        elif problems := identifiers.variable(name):
            found += identifiers.causes(f"{field}[{index}].name", name, problems)
        if source is not None:
            found += _source_causes(source, f"{field}[{index}].valueFrom", valued=bool(variable.get("value")))
    return found


def _source_causes(source: JsonObject, field: str, *, valued: bool) -> list[Cause]:
    given = [name for name in _SOURCES if source.get(name) is not None]
    found: list[Cause] = []
    for name in given:
        inner, path = source[name], f"{field}.{name}"
        if name == "fieldRef":
            found += field_causes(inner, VARIABLE_FIELDS, path)
        elif name == "resourceFieldRef":
            found += resource_field_causes(inner, path, of_volume=False)
        elif name == "fileKeyRef":
            found += _file_causes(inner, path)
        else:
            found += _key_causes(inner, path)
    if not given:
        *others, last = (f"`{name}`" for name in _SOURCES)
        text = f"must specify one of: {', '.join(others)} or {last}"
        found.append(errors.invalid_value(field, "", text))
    elif valued:
        found.append(errors.invalid_value(field, "", "may not be specified when `value` is not empty"))
    elif len(given) > 1:
        found.append(errors.invalid_value(field, "", "may not have more than one field specified at a time"))
    return found


def field_causes(reference: JsonObject, allowed: tuple[str, ...], field: str) -> list[Cause]:
    """Of a `fieldRef`."""
    version, path = reference.get("apiVersion") or "", reference.get("fieldPath") or ""
    if not version or not path:
        return [errors.required(f"{field}.{'fieldPath' if version else 'apiVersion'}")]
    subscripted = _SUBSCRIPT.fullmatch(path)
    problem = ""
    if version != "v1":
        problem = f"unsupported pod version: {version}"
    elif subscripted is not None and subscripted[1] not in ("metadata.annotations", "metadata.labels"):
        problem = f"field label does not support subscript: {path}"
    elif subscripted is None and path not in _KNOWN_FIELDS:
        problem = f"field label not supported: {path}"
    if problem:
        return [errors.invalid_value(f"{field}.fieldPath", path, f"error converting fieldPath: {problem}")]
    if subscripted is not None:
        key = subscripted[2].lower() if subscripted[1] == "metadata.annotations" else subscripted[2]
        return identifiers.causes(field, key, identifiers.qualified(key))
    found = "spec.nodeName" if path == "spec.host" else path
    return [] if found in allowed else [errors.not_supported(f"{field}.fieldPath", found, sorted(allowed))]


def resource_field_causes(reference: JsonObject, field: str, *, of_volume: bool) -> list[Cause]:
    """Of a `resourceFieldRef`; in a volume it names a container."""
    resource, found = reference.get("resource") or "", []
    if of_volume and not reference.get("containerName"):
        found.append(errors.required(f"{field}.containerName"))
    elif not resource:
        found.append(errors.required(f"{field}.resource"))
    elif resource not in _RESOURCES and not resource.startswith(_HUGE):
        found.append(errors.not_supported(f"{field}.resource", resource, _RESOURCES))
    divisor = canonical(reference.get("divisor") or "0")
    if divisor != "0" and (text := _divisor_problem(resource, divisor)):
        found.append(errors.invalid_value(f"{field}.divisor", resource, text))
    return found


def _divisor_problem(resource: str, divisor: str) -> str:
    _, _, name = resource.partition(".")
    if name == "cpu":
        wrong = divisor not in ("1m", "1")
        return "only divisor's values 1m and 1 are supported with the cpu resource" if wrong else ""
    shown = {"memory": "memory", "ephemeral-storage": "local ephemeral storage"}.get(name, "")
    if resource.startswith(_HUGE):
        shown = "hugepages"
    return _LARGE_TEXT % shown if shown and divisor not in _SIZES else ""


def _key_causes(reference: JsonObject, field: str) -> list[Cause]:
    name, key = reference.get("name") or "", reference.get("key") or ""
    found = identifiers.causes(f"{field}.name", name, identifiers.subdomain(name))
    if not key:
        return [*found, errors.required(f"{field}.key")]
    return found + identifiers.causes(f"{field}.key", key, identifiers.config_key(key))


def _file_causes(reference: JsonObject, field: str) -> list[Cause]:
    found: list[Cause] = []
    for name in ("key", "volumeName", "path"):
        value, path = reference.get(name) or "", f"{field}.{name}"
        if not value:
            found.append(errors.required(path))
        elif name == "path":
            found += without_backsteps(value, path)
        else:
            rule = identifiers.variable if name == "key" else identifiers.label
            found += identifiers.causes(path, value, rule(value))
    return found


def import_causes(imports: list[JsonObject], field: str) -> list[Cause]:
    """Of a container's `envFrom`."""
    found: list[Cause] = []
    for index, each in enumerate(imports):
        path = f"{field}[{index}]"
        if prefix := each.get("prefix"):
            found += identifiers.causes(f"{path}.prefix", prefix, identifiers.variable(prefix))
        given = [name for name in ("configMapRef", "secretRef") if each.get(name) is not None]
        for name in given:
            source = each[name].get("name") or ""
            if not source:
                found.append(errors.required(f"{path}.{name}.name"))
            # kube-apiserver judges these as prefixes of names, which may end with a dash.
            judged = f"{source[:-1]}a" if len(source) > 1 and source.endswith("-") else source
            found += identifiers.causes(
                f"{path}.{name}.name", source, identifiers.subdomain(judged) if source else ()
            )
        if len(given) != 1:
            text = "may not have more than one field specified at a time"
            missing = "must specify one of: `configMapRef` or `secretRef`"
            found.append(errors.invalid_value(field, "", text if given else missing))
    return found
