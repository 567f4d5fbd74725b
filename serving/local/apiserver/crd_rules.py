"""What a CustomResourceDefinition may say, in kube-apiserver's words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors, meta, structural
from serving.local.apiserver.errors import Cause

_SCOPES: Final = ("Cluster", "Namespaced")
_STRATEGIES: Final = ("None", "Webhook")
_COLUMN_TYPES: Final = ("boolean", "date", "integer", "number", "string")
_MIXED: Final = "may have mixed case, but should otherwise match: "
_COLLAPSED: Final = {
    "schema": "spec.validation",
    "subresources": "spec.subresources",
    "additionalPrinterColumns": "spec.additionalPrinterColumns",
    "selectableFields": "spec.selectableFields",
}
"""What all versions have in common is named once, where older definitions said it."""


def crd_causes(crd: JsonObject, old: JsonObject | None) -> list[Cause]:
    spec = crd.get("spec")
    if not isinstance(spec, dict):
        return [errors.required("spec")]
    found = list(_names(crd, spec))
    versions = [version for version in spec.get("versions") or () if isinstance(version, dict)]
    found += _versions(versions)
    for index, version in enumerate(versions):
        found += _version(version, versions, index)
    if spec.get("preserveUnknownFields"):
        detail = (
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema "
            "instead"
        )
        found.append(errors.invalid_value("spec.preserveUnknownFields", True, detail))
    found += _conversion(spec.get("conversion") or {})
    if old is not None:
        found = [*_immutable(spec, old), *(cause for cause in found if cause.field != "metadata.name")]
    return found


def _names(crd: JsonObject, spec: JsonObject) -> Iterator[Cause]:
    names = spec.get("names") or {}
    group = spec.get("group") or ""
    if not group:
        yield errors.required("spec.group")
    elif "." not in group:
        yield errors.invalid_value("spec.group", group, "should be a domain with at least one dot")
    else:
        yield from meta.subdomain_causes(group, "spec.group")
    for field in ("plural", "singular"):
        yield from _label(names.get(field), f"spec.names.{field}")
    for field in ("kind", "listKind"):
        name = names.get(field) or ""
        if not name:
            yield errors.required(f"spec.names.{field}")
        elif causes := meta.dns1035_causes(name.lower(), ""):
            text = causes[0].text.split(": ", 2)[-1]
            yield errors.invalid_value(f"spec.names.{field}", name, _MIXED + text)
    for field in ("shortNames", "categories"):
        for index, name in enumerate(names.get(field) or ()):
            yield from _label(name, f"spec.names.{field}[{index}]")
    if crd["metadata"].get("name") != f"{names.get('plural') or ''}.{group}":
        detail = 'must be spec.names.plural+"."+spec.group'
        yield errors.invalid_value("metadata.name", crd["metadata"].get("name"), detail)
    scope = spec.get("scope") or ""
    if not scope:
        yield errors.required("spec.scope")
    elif scope not in _SCOPES:
        yield errors.not_supported("spec.scope", scope, _SCOPES)


def _label(name: str | None, field: str) -> list[Cause]:
    return meta.dns1035_causes(name, field) if name else [errors.required(field)]


def _versions(versions: list[JsonObject]) -> Iterator[Cause]:
    names = [version.get("name") for version in versions]
    stored = sum(1 for version in versions if version.get("storage"))
    shown = [_go_version(version) for version in versions]
    if len(set(names)) != len(names):
        yield errors.invalid_value("spec.versions", shown, "must contain unique version names")
    if stored != 1:
        detail = "must have exactly one version marked as storage version"
        yield errors.invalid_value("spec.versions", shown, detail)
    if not stored:
        yield errors.invalid_value("status.storedVersions", None, "must have at least one stored version")
    for index, name in enumerate(names):
        causes = _label(name, f"spec.versions[{index}].name")
        yield from causes
        if index == 0 and name:
            yield from (Cause("spec.version", cause.reason, cause.text) for cause in causes)


def _go_version(version: JsonObject) -> JsonObject:
    """As Go shows a version whose schema was moved out of it."""
    nothing = ("DeprecationWarning", "Schema", "Subresources", "AdditionalPrinterColumns", "SelectableFields")
    return {
        "Name": version.get("name") or "",
        "Served": bool(version.get("served")),
        "Storage": bool(version.get("storage")),
        "Deprecated": bool(version.get("deprecated")),
        **dict.fromkeys(nothing),
    }


def _version(version: JsonObject, versions: list[JsonObject], index: int) -> Iterator[Cause]:
    def path(field: str) -> str | None:
        """Where a field is named; None = it was named with the first version."""
        if all(other.get(field) == version.get(field) for other in versions):
            return _COLLAPSED[field] if index == 0 else None
        return f"spec.versions[{index}].{field}"

    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    if not isinstance(schema, dict):
        yield errors.required(f"spec.versions[{index}].schema.openAPIV3Schema")
        return
    if (where := path("schema")) is not None:
        yield from structural.causes(schema, f"{where}.openAPIV3Schema")
    if (where := path("subresources")) is not None:
        yield from _scale((version.get("subresources") or {}).get("scale"), f"{where}.scale")
    if (where := path("additionalPrinterColumns")) is not None:
        for number, column in enumerate(version.get("additionalPrinterColumns") or ()):
            yield from _column(column, f"{where}[{number}]")
    if (where := path("selectableFields")) is not None:
        for number, field in enumerate(version.get("selectableFields") or ()):
            if not _leads_somewhere(schema, str(field.get("jsonPath") or "")):
                detail = "is an invalid path: does not refer to a valid field"
                yield errors.invalid_value(f"{where}[{number}].jsonPath", field.get("jsonPath"), detail)


def _scale(scale: Any, path: str) -> Iterator[Cause]:
    if not isinstance(scale, dict):
        return
    for field, start in (("specReplicasPath", ".spec"), ("statusReplicasPath", ".status")):
        value = scale.get(field) or ""
        if not value:
            yield errors.required(f"{path}.{field}")
        elif not value.startswith(start + "."):
            yield errors.invalid_value(f"{path}.{field}", value, f"should be a json path under {start}")


def _column(column: JsonObject, path: str) -> Iterator[Cause]:
    if not column.get("name"):
        yield errors.required(f"{path}.name")
    kind = column.get("type") or ""
    if not kind:
        yield errors.required(f"{path}.type", f"must be one of {','.join(_COLUMN_TYPES)}")
    elif kind not in _COLUMN_TYPES:
        yield errors.invalid_value(f"{path}.type", kind, f"must be one of {','.join(_COLUMN_TYPES)}")
    if not column.get("jsonPath"):
        yield errors.required(f"{path}.JSONPath")


def _leads_somewhere(schema: JsonObject, path: str) -> bool:
    for part in re.findall(r"[^.]+", path):
        schema = (schema.get("properties") or {}).get(part) or {}
        if not schema:
            return False
    return schema.get("type") in ("boolean", "integer", "string")


def _conversion(conversion: JsonObject) -> Iterator[Cause]:
    strategy = conversion.get("strategy")
    if strategy not in _STRATEGIES:
        yield errors.not_supported("spec.conversion.strategy", strategy or "", _STRATEGIES)
    if strategy != "Webhook":
        return
    webhook = conversion.get("webhook") or {}
    if not webhook.get("clientConfig"):
        yield errors.required("spec.conversion.webhookClientConfig", "required when strategy is set to Webhook")
    if not webhook.get("conversionReviewVersions"):
        yield errors.required("spec.conversion.conversionReviewVersions")
    if webhook:
        yield errors.forbidden_field(
            "spec.conversion.strategy", "conversion webhooks are not called by the embedded API server"
        )


def _immutable(spec: JsonObject, old: JsonObject) -> Iterator[Cause]:
    before = old["spec"]
    pairs = [
        ("spec.group", spec.get("group"), before.get("group")),
        ("spec.names.plural", (spec.get("names") or {}).get("plural"), before["names"].get("plural")),
    ]
    conditions = (old.get("status") or {}).get("conditions") or ()
    if any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
        pairs += [
            ("spec.scope", spec.get("scope"), before.get("scope")),
            ("spec.names.kind", (spec.get("names") or {}).get("kind"), before["names"].get("kind")),
        ]
    for field, value, was in pairs:
        if value != was:
            yield errors.invalid_value(field, value, "field is immutable")
