"""Security contexts of a Pod and its containers. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors, identifiers
from serving.local.apiserver.errors import Cause
from serving.local.apiserver.podvalidation.paths import descending

_NUMBERS: Final = ("runAsUser", "runAsGroup", "fsGroup")
_CHOICES: Final = {
    "procMount": ("Default", "Unmasked"),
    "fsGroupChangePolicy": ("Always", "OnRootMismatch"),
    "supplementalGroupsPolicy": ("Merge", "Strict"),
    "seLinuxChangePolicy": ("MountOption", "Recursive"),
}
_PROFILES: Final = ("Localhost", "RuntimeDefault", "Unconfined")
_SYSCTL: Final = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTLS: Final = rf"^({_SYSCTL}[\./])*{_SYSCTL}$"
_MAX_SYSCTL: Final = 253
_MAX_PROFILE: Final = 4095


def security_causes(context: JsonObject, field: str, *, host_users: bool = True) -> list[Cause]:
    """Of a container, or what a Pod's context has in common with one."""
    if not context:
        return []
    found: list[Cause] = []
    for name in _NUMBERS:
        value = context.get(name)
        if value is not None:
            found += _number_causes(value, f"{field}.{name}")
    for name, allowed in _CHOICES.items():
        if name in context and context[name] not in (None, *allowed):
            found.append(errors.not_supported(f"{field}.{name}", context[name], allowed))
    if host_users and context.get("procMount") == "Unmasked":
        text = "`hostUsers` must be false to use `Unmasked`"
        found.append(errors.invalid_value(f"{field}.procMount", "Unmasked", text))
    if context.get("allowPrivilegeEscalation") is False:
        found += _escalation_causes(context, field)
    if (seccomp := context.get("seccompProfile")) is not None:
        found += _seccomp_causes(seccomp, f"{field}.seccompProfile")
    if (app_armor := context.get("appArmorProfile")) is not None:
        found += _app_armor_causes(app_armor, f"{field}.appArmorProfile")
    return found


def pod_security_causes(spec: JsonObject, field: str) -> list[Cause]:
    context = spec.get("securityContext") or {}
    if not context:
        return []
    found = security_causes(context, field)
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        found += _number_causes(group, f"{field}.supplementalGroups[{index}]")
    names: set[str] = set()
    for index, sysctl in enumerate(context.get("sysctls") or ()):
        name, path = sysctl.get("name") or "", f"{field}.sysctls[{index}].name"
        if not name:
            found.append(errors.required(path))
        elif len(name) > _MAX_SYSCTL or not re.match(_SYSCTLS, name):
            text = f"must have at most {_MAX_SYSCTL} characters and match regex {_SYSCTLS}"
            found.append(errors.invalid_value(path, name, text))
        elif name in names:
            found.append(errors.duplicate_value(path, name))
        if spec.get("hostNetwork") and name.replace("/", ".").startswith("net."):
            found.append(errors.invalid_value(path, name, "may not be specified when 'hostNetwork' is true"))
        names.add(name)
    return found


def _number_causes(value: int, field: str) -> list[Cause]:
    return [errors.invalid_value(field, value, text) for text in identifiers.user_number(value)]


def _escalation_causes(context: JsonObject, field: str) -> list[Cause]:
    found: list[Cause] = []
    if context.get("privileged"):
        text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        found.append(errors.invalid_value(field, context, text))
    if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
        text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
        found.append(errors.invalid_value(field, context, text))
    return found


def _type_causes(kind: Any, field: str, parent: str) -> list[Cause]:
    if not kind:
        return [errors.required(f"{field}.type", f"type is required when {parent} is set")]
    return [] if kind in _PROFILES else [errors.not_supported(f"{field}.type", kind, _PROFILES)]


def _seccomp_causes(profile: JsonObject, field: str) -> list[Cause]:
    kind, local = profile.get("type"), profile.get("localhostProfile")
    found, path = _type_causes(kind, field, "seccompProfile"), f"{field}.localhostProfile"
    if kind != "Localhost":
        if local is not None:
            found.append(errors.invalid_value(path, profile, "can only be set when seccomp type is Localhost"))
        return found
    if local is None:
        return [*found, errors.required(path, "must be set when seccomp type is Localhost")]
    return found + descending(local, path)


def _app_armor_causes(profile: JsonObject, field: str) -> list[Cause]:
    kind, local = profile.get("type"), profile.get("localhostProfile")
    path = f"{field}.localhostProfile"
    if kind != "Localhost":
        found = _type_causes(kind, field, "appArmorProfile")
        if not found and local is not None:
            found.append(errors.invalid_value(path, local, "can only be set when AppArmor type is Localhost"))
        return found
    if not local:
        return [errors.required(path, "must be set when AppArmor type is Localhost")]
    found = []
    if local.strip() != local:
        found.append(errors.invalid_value(path, local, "must not be padded with whitespace"))
    if len(local) > _MAX_PROFILE:
        found.append(errors.too_long(path, _MAX_PROFILE, "bytes"))
    return found
