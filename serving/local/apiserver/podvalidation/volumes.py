"""Volumes of a Pod, and where a container mounts them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from serving.api.meta import JsonObject
from serving.api.quantity import parse_quantity
from serving.local.apiserver import errors, identifiers
from serving.local.apiserver.errors import Cause
from serving.local.apiserver.podvalidation.environment import VOLUME_FIELDS, field_causes, resource_field_causes
from serving.local.apiserver.podvalidation.paths import descending, mode, unreserved, without_backsteps

_HOST_PATH_TYPES: Final = (
    *("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"),
)
_PROPAGATIONS: Final = ("Bidirectional", "HostToContainer", "None")
_RECURSIVE: Final = ("Disabled", "Enabled", "IfPossible")
_ONE_KIND: Final = "may not specify more than 1 volume type"
_MIN_TOKEN_SECONDS: Final = 600
_MAX_TOKEN_SECONDS: Final = 2**32


def volume_causes(volumes: list[JsonObject], field: str) -> tuple[dict[str, JsonObject], list[Cause]]:
    """The volumes by name that containers may mount, and what is wrong with any."""
    found: list[Cause] = []
    usable: dict[str, JsonObject] = {}
    for index, volume in enumerate(volumes):
        path, name = f"{field}[{index}]", volume.get("name") or ""
        wrong = _source_causes(volume, path)
        if not name:
            wrong.append(errors.required(f"{path}.name"))
        elif problems := identifiers.label(name):
            wrong += identifiers.causes(f"{path}.name", name, problems)
        if name in usable:
            wrong.append(errors.duplicate_value(f"{path}.name", name))
        if wrong:
            found += wrong
        else:
            usable[name] = volume
    return usable, found


def _source_causes(volume: JsonObject, field: str) -> list[Cause]:
    given = [name for name, source in volume.items() if name != "name" and source is not None]
    if not given:
        return [errors.required(field, "must specify a volume type")]
    if len(given) > 1:
        order = list(_SOURCES)
        given.sort(key=lambda name: order.index(name) if name in _SOURCES else len(order))
    more = [errors.forbidden_field(f"{field}.{name}", _ONE_KIND) for name in given[1:]]
    rule = _SOURCES.get(given[0])
    return (rule(volume[given[0]], f"{field}.{given[0]}") if rule is not None else []) + more


def _empty_dir(source: JsonObject, field: str) -> list[Cause]:
    limit = source.get("sizeLimit")
    if limit is None or parse_quantity(limit) >= 0:
        return []
    return [errors.forbidden_field(f"{field}.sizeLimit", "SizeLimit field must be a valid resource quantity")]


def _host_path(source: JsonObject, field: str) -> list[Cause]:
    path, kind = source.get("path") or "", source.get("type")
    if not path:
        return [errors.required(f"{field}.path")]
    found = without_backsteps(path, f"{field}.path")
    if kind is not None and kind not in _HOST_PATH_TYPES:
        found.append(errors.not_supported(f"{field}.type", kind, _HOST_PATH_TYPES))
    return found


def _secret(source: JsonObject, field: str) -> list[Cause]:
    found = [] if source.get("secretName") else [errors.required(f"{field}.secretName")]
    return found + _mode_and_items(source, field)


def _config_map(source: JsonObject, field: str) -> list[Cause]:
    found = [] if source.get("name") else [errors.required(f"{field}.name")]
    return found + _mode_and_items(source, field)


def _mode_and_items(source: JsonObject, field: str) -> list[Cause]:
    found = mode(source.get("defaultMode"), f"{field}.defaultMode")
    for index, item in enumerate(source.get("items") or ()):
        found += _item_causes(item, f"{field}.items[{index}]")
    return found


def _item_causes(item: JsonObject, field: str) -> list[Cause]:
    found = [errors.required(f"{field}.{name}") for name in ("key", "path") if not item.get(name)]
    return found + unreserved(item.get("path") or "", f"{field}.path") + mode(item.get("mode"), f"{field}.mode")


def _downward(source: JsonObject, field: str) -> list[Cause]:
    found = mode(source.get("defaultMode"), f"{field}.defaultMode")
    for item in source.get("items") or ():
        found += _downward_file(item, field)
    return found


def _downward_file(item: JsonObject, field: str) -> list[Cause]:
    path, of_field, of_resource = item.get("path") or "", item.get("fieldRef"), item.get("resourceFieldRef")
    found = [] if path else [errors.required(f"{field}.path")]
    found += unreserved(path, f"{field}.path")
    if of_field is not None:
        found += field_causes(of_field, VOLUME_FIELDS, f"{field}.fieldRef")
        if of_resource is not None:
            text = "fieldRef and resourceFieldRef can not be specified simultaneously"
            found.append(errors.invalid_value(field, "resource", text))
    elif of_resource is not None:
        found += resource_field_causes(of_resource, f"{field}.resourceFieldRef", of_volume=True)
    else:
        found.append(errors.required(field, "one of fieldRef and resourceFieldRef is required"))
    return found + mode(item.get("mode"), f"{field}.mode")


def _projected(source: JsonObject, field: str) -> list[Cause]:
    found = mode(source.get("defaultMode"), f"{field}.defaultMode")
    taken: set[str] = set()
    for index, each in enumerate(source.get("sources") or ()):
        path = f"{field}.sources[{index}]"
        given = [name for name, value in each.items() if value is not None]
        for name in given:
            if rule := _PROJECTIONS.get(name):
                found += rule(each[name], f"{path}.{name}", field, taken)
        if len(given) > 1:
            found.append(errors.forbidden_field(path, "may not specify more than 1 volume type per source"))
    return found


def _projected_object(source: JsonObject, field: str, volume: str, taken: set[str]) -> list[Cause]:
    name = source.get("name") or ""
    found = [] if name else [errors.required(f"{field}.name")]
    for index, item in enumerate(source.get("items") or ()):
        found += _item_causes(item, f"{field}.items[{index}]")
        found += _taken_causes(item, volume, taken, shown=name)
    return found


def _projected_downward(source: JsonObject, field: str, volume: str, taken: set[str]) -> list[Cause]:
    found: list[Cause] = []
    for item in source.get("items") or ():
        found += _downward_file(item, field)
        found += _taken_causes(item, volume, taken, shown=item.get("path") or "")
    return found


def _projected_token(source: JsonObject, field: str, volume: str, _taken: set[str]) -> list[Cause]:
    seconds, path = source.get("expirationSeconds") or 0, source.get("path") or ""
    found: list[Cause] = []
    if seconds < _MIN_TOKEN_SECONDS:
        text = "may not specify a duration less than 10 minutes"
        found.append(errors.invalid_value(f"{field}.expirationSeconds", seconds, text))
    if seconds > _MAX_TOKEN_SECONDS:
        text = "may not specify a duration larger than 2^32 seconds"
        found.append(errors.invalid_value(f"{field}.expirationSeconds", seconds, text))
    if not path:
        return [*found, errors.required(f"{volume}.path")]
    return found + unreserved(path, f"{volume}.path")


def _taken_causes(item: JsonObject, volume: str, taken: set[str], *, shown: str) -> list[Cause]:
    path = item.get("path")
    if path and path in taken:
        return [errors.invalid_value(volume, shown, "conflicting duplicate paths")]
    taken.add(path or "")
    return []


def _claim(source: JsonObject, field: str) -> list[Cause]:
    return [] if source.get("claimName") else [errors.required(f"{field}.claimName")]


_PROJECTIONS: Final[dict[str, Callable[[JsonObject, str, str, set[str]], list[Cause]]]] = {
    "secret": _projected_object,
    "configMap": _projected_object,
    "downwardAPI": _projected_downward,
    "serviceAccountToken": _projected_token,
}
_SOURCES: Final[dict[str, Callable[[JsonObject, str], list[Cause]]]] = {
    "emptyDir": _empty_dir,
    "hostPath": _host_path,
    "secret": _secret,
    "persistentVolumeClaim": _claim,
    "downwardAPI": _downward,
    "configMap": _config_map,
    "projected": _projected,
}
"""In the order in which kube-apiserver looks: the first one counts."""


def mount_causes(container: JsonObject, usable: dict[str, JsonObject], field: str) -> list[Cause]:
    """`field`: of the container's `volumeMounts`; kube-apiserver tells some paths without the index."""
    found: list[Cause] = []
    points: set[str] = set()
    for index, mount in enumerate(container["volumeMounts"]):
        name, point = mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            found.append(errors.required(f"{field}[{index}].name"))
        if name not in usable:
            found.append(Cause(f"{field}[{index}].name", "FieldValueNotFound", f'Not found: "{name}"'))
        if not point:
            found.append(errors.required(f"{field}[{index}].mountPath"))
        if point in points:
            found.append(errors.invalid_value(f"{field}[{index}].mountPath", point, "must be unique"))
        points.add(point)
        if len(mount) > 2:
            found += _mount_option_causes(mount, container, field, f"{field}[{index}]")
    return found


def _mount_option_causes(mount: JsonObject, container: JsonObject, field: str, item: str) -> list[Cause]:
    path, expression = mount.get("subPath") or "", mount.get("subPathExpr") or ""
    found = descending(path, f"{field}.subPath") if path else []
    if expression:
        if path:
            text = "subPathExpr and subPath are mutually exclusive"
            found.append(errors.invalid_value(f"{item}.subPathExpr", expression, text))
        found += descending(expression, f"{field}.subPathExpr")
    propagation = mount.get("mountPropagation")
    if propagation is not None and propagation not in _PROPAGATIONS:
        found.append(errors.not_supported(f"{field}.mountPropagation", propagation, _PROPAGATIONS))
    if propagation == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
        text = "Bidirectional mount propagation is available only to privileged containers"
        found.append(errors.forbidden_field(f"{field}.mountPropagation", text))
    return found + _recursive_causes(mount, propagation, f"{field}.recursiveReadOnly")


def _recursive_causes(mount: JsonObject, propagation: Any, field: str) -> list[Cause]:
    value = mount.get("recursiveReadOnly")
    if value in (None, "Disabled"):
        return []
    if value not in _RECURSIVE:
        return [errors.not_supported(field, value, _RECURSIVE)]
    found: list[Cause] = []
    if not mount.get("readOnly"):
        found.append(errors.forbidden_field(field, "may only be specified when readOnly is true"))
    if propagation not in (None, "None"):
        text = "may only be specified when mountPropagation is None or not specified"
        found.append(errors.forbidden_field(field, text))
    return found
