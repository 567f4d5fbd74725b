"""Rules for `volumes` and for the mounts of a container."""

from __future__ import annotations

import posixpath
from collections.abc import Collection
from typing import Final

from serving.api.config.features import DISABLED, ENABLED, FeaturesConfig
from serving.api.errors import FieldError, invalid_value, missing_field, missing_one_of, multiple_one_of, under
from serving.api.meta import JsonObject
from serving.api.names import dns1123_label_problems, quote
from serving.api.quantity import parse_quantity
from serving.api.schema.core import IMAGE_VOLUME_SOURCE, VOLUME_MOUNT, VOLUME_PROJECTION, VOLUME_SOURCE
from serving.api.validation.context import PodRules, only_fields

_ALWAYS: Final = ("secret", "configMap", "projected")
_GATED: Final = (
    ("emptyDir", "podspec_volumes_emptydir", "EmptyDir"),
    ("persistentVolumeClaim", "podspec_persistent_volume_claim", ""),
    ("hostPath", "podspec_volumes_hostpath", "HostPath"),
    ("csi", "podspec_volumes_csi", "CSI"),
    ("ephemeral", "podspec_volumes_ephemeral", "Ephemeral"),
    ("image", "podspec_volumes_image", "Image"),
)
"""Kind of volume, its feature flag, its name in the message."""
_RESERVED_PATHS: Final = frozenset({"/", "/dev", "/dev/log"})
_WRITABLE: Final = ("emptyDir", "persistentVolumeClaim", "ephemeral")
_MOUNT_FIELDS: Final = ("name", "readOnly", "mountPath", "subPath")


def validate_volumes(
    volumes: list[JsonObject], *, mounted: Collection[str], rules: PodRules
) -> tuple[dict[str, JsonObject], list[FieldError]]:
    """The volumes by name, and what is wrong with them. `mounted`: names that some container mounts."""
    named: dict[str, JsonObject] = {}
    errors: list[FieldError] = []
    for index, volume in enumerate(volumes):
        name = volume.get("name", "")
        found: list[FieldError] = []
        if name in named:
            found.append(FieldError(f"duplicate volume name {quote(name)}", ("name",)))
        if name not in mounted:
            found.append(FieldError(f"volume with name {quote(name)} not mounted", ("name",)))
        errors += under(f"[{index}]", found + _validate_volume(volume, rules.features))
        named[name] = volume
    return named, errors


def _validate_volume(volume: JsonObject, features: FeaturesConfig) -> list[FieldError]:
    name = volume.get("name", "")
    errors = _validate_gates(volume, features)
    if not name:
        errors = [missing_field("name")]
    elif dns1123_label_problems(name):
        # Upstream forgets what it found before a bad name; the texts are part of the contract.
        errors = [invalid_value(name, "name")]
    allowed = [*_ALWAYS, *(kind for kind, flag, _ in _GATED if getattr(features, flag) != DISABLED)]
    errors += only_fields(VOLUME_SOURCE, volume, allowed)
    for kind in ("secret", "configMap"):
        if kind in volume:
            errors += _validate_items(volume[kind].get("items", []))
    for index, source in enumerate(volume.get("projected", {}).get("sources", ())):
        errors += under(f"projected[{index}]", _validate_projection(source))
    if "emptyDir" in volume:
        errors += under("emptyDir", _validate_empty_dir(volume["emptyDir"]))
    if "image" in volume:
        errors += under("image", _validate_image(volume["image"]))
    given = [kind for kind in (*_ALWAYS, *(kind for kind, _, _ in _GATED)) if kind in volume]
    if not given:
        offered = [kind for kind, flag, _ in _GATED if getattr(features, flag) == ENABLED]
        errors.append(missing_one_of(*_ALWAYS, *offered))
    elif len(given) > 1:
        errors.append(multiple_one_of(*given))
    return errors


def _validate_gates(volume: JsonObject, features: FeaturesConfig) -> list[FieldError]:
    errors = [
        FieldError(f"{title} volume support is disabled, but found {title} volume {volume.get('name', '')}")
        for kind, flag, title in _GATED
        if title and kind in volume and getattr(features, flag) != ENABLED
    ]
    claim = volume.get("persistentVolumeClaim")
    if claim is not None:
        found = f"but found persistent volume claim {claim.get('claimName', '')}"
        if features.podspec_persistent_volume_claim != ENABLED:
            errors.append(FieldError(f"Persistent volume claim support is disabled, {found}"))
        if not claim.get("readOnly") and features.podspec_persistent_volume_write != ENABLED:
            message = f"Persistent volume write support is disabled, {found} that is not read-only"
            errors.append(FieldError(message))
    return errors


def _validate_items(items: list[JsonObject]) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, item in enumerate(items):
        missing = [missing_field(key) for key in ("key", "path") if not item.get(key)]
        errors += under(f"items[{index}]", missing)
    return errors


def _validate_projection(source: JsonObject) -> list[FieldError]:
    kinds = ("secret", "configMap", "serviceAccountToken", "downwardAPI")
    errors = only_fields(VOLUME_PROJECTION, source, kinds)
    for kind in ("secret", "configMap"):
        if kind in source:
            found = [] if source[kind].get("name") else [missing_field("name")]
            errors += under(kind, found + _validate_items(source[kind].get("items", [])))
    if "serviceAccountToken" in source and not source["serviceAccountToken"].get("path"):
        errors += under("serviceAccountToken", [missing_field("path")])
    if "downwardAPI" in source:
        for index, item in enumerate(source["downwardAPI"].get("items", ())):
            errors += under(f"downwardAPI.items[{index}]", _validate_downward_item(item))
    given = [kind for kind in kinds if kind in source]
    if not given:
        errors.append(missing_one_of(*kinds))
    elif len(given) > 1:
        errors.append(multiple_one_of(*given))
    return errors


def _validate_downward_item(item: JsonObject) -> list[FieldError]:
    errors: list[FieldError] = []
    given = [key for key in ("resourceFieldRef", "fieldRef") if key in item]
    if not given:
        errors.append(missing_one_of("fieldRef", "resourceFieldRef"))
    elif len(given) == 2:
        errors.append(FieldError("Within a single item, cannot set both", ("resourceFieldRef", "fieldRef")))
    if not item.get("path"):
        errors.append(missing_field("path"))
    return errors


def _validate_empty_dir(source: JsonObject) -> list[FieldError]:
    errors: list[FieldError] = []
    medium, limit = source.get("medium", ""), source.get("sizeLimit")
    if medium not in ("", "Memory"):
        errors.append(invalid_value(medium, "medium"))
    if limit is not None and parse_quantity(limit) < 0:
        errors.append(invalid_value(limit, "sizeLimit"))
    return errors


def _validate_image(source: JsonObject) -> list[FieldError]:
    errors = only_fields(IMAGE_VOLUME_SOURCE, source, ("reference", "pullPolicy"))
    if not source.get("reference"):
        errors.append(missing_field("reference"))
    policy = source.get("pullPolicy", "")
    if policy not in ("", "Always", "IfNotPresent", "Never"):
        errors.append(invalid_value(policy, "pullPolicy"))
    return errors


def validate_mounts(
    mounts: list[JsonObject], *, volumes: dict[str, JsonObject], features: FeaturesConfig
) -> list[FieldError]:
    errors: list[FieldError] = []
    taken: set[str] = set()
    propagation = features.podspec_volumes_mount_propagation
    allowed = _MOUNT_FIELDS if propagation == DISABLED else (*_MOUNT_FIELDS, "mountPropagation")
    for index, mount in enumerate(mounts):
        name, path = mount.get("name", ""), mount.get("mountPath", "")
        found = only_fields(VOLUME_MOUNT, mount, allowed)
        if name not in volumes:
            found.append(FieldError("volumeMount has no matching volume", ("name",)))
        clean = clean_path(path)
        found += _validate_mount_path(path, clean, taken)
        taken.add(clean)
        volume, read_only = volumes.get(name, {}), bool(mount.get("readOnly"))
        if not read_only and not any(kind in volume for kind in _WRITABLE):
            message = "volume mount should be readOnly for this type of volume"
            found.append(FieldError(message, ("readOnly",)))
        if not read_only and volume.get("persistentVolumeClaim", {}).get("readOnly"):
            found.append(FieldError("volume is readOnly but volume mount is not", ("readOnly",)))
        if "mountPropagation" in mount:
            found += _validate_propagation(name, mount["mountPropagation"], enabled=propagation == ENABLED)
        errors += under(f"[{index}]", found)
    return errors


def _validate_mount_path(path: str, clean: str, taken: Collection[str]) -> list[FieldError]:
    if not path:
        return [missing_field("mountPath")]
    if clean in _RESERVED_PATHS:
        return [FieldError(f"mountPath {quote(clean)} is a reserved path", ("mountPath",))]
    if not path.startswith("/"):
        return [invalid_value(path, "mountPath")]
    return [invalid_value(f"{quote(path)} must be unique", "mountPath")] if clean in taken else []


def _validate_propagation(name: str, value: str, *, enabled: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    if not enabled:
        found = f"but found volume mount {name} with mount propagation"
        # Upstream gives no path here; the index of the mount is all that it prints.
        errors.append(FieldError(f"Volume Mount Propagation support is disabled, {found}"))
    if value not in ("None", "HostToContainer"):
        message = "mount propagation should be set to None or HostToContainer"
        errors.append(FieldError(message, ("mountPropagation",)))
    return errors


def clean_path(path: str) -> str:
    """Shortest equal path, as Go's path.Clean."""
    clean = posixpath.normpath(path)
    return clean[1:] if clean.startswith("//") else clean
