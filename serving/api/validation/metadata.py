"""Rules for `metadata` of the kinds themselves."""

from __future__ import annotations

from serving.api.errors import FieldError, invalid_value, missing_field
from serving.api.keys import CREATOR, LAST_MODIFIER
from serving.api.meta import JsonObject
from serving.api.names import dns1035_label_problems
from serving.api.schema.canonical import same
from serving.api.schema.nodes import Node


def listed(problems: list[str]) -> str:
    """As Go prints a list of strings."""
    return f"[{' '.join(problems)}]"


def validate_name(metadata: JsonObject) -> list[FieldError]:
    name, generated = metadata.get("name", ""), metadata.get("generateName", "")
    if generated:
        problems = dns1035_label_problems(generated, prefix=True)
        if problems:
            return [FieldError(f"not a DNS 1035 label prefix: {listed(problems)}", ("generateName",))]
    if name:
        problems = dns1035_label_problems(name)
        if problems:
            return [FieldError(f"not a DNS 1035 label: {listed(problems)}", ("name",))]
    if not name and not generated:
        return [FieldError("name or generateName is required", ("name",))]
    return []


def validate_owner_label(metadata: JsonObject, label: str, kind: str) -> list[FieldError]:
    """A label that names the owner needs the owner reference: it decides what the object belongs to."""
    value = metadata.get("labels", {}).get(label)
    if value is None:
        return []
    for owner in metadata.get("ownerReferences", ()):
        if owner.get("kind") == kind and owner.get("name") == value:
            return []
    return [missing_field(label)]


def validate_user_info(spec: Node, old: JsonObject, new: JsonObject) -> list[FieldError]:
    """The annotations with the creator and the last modifier are ours; paths are keys."""
    before, after = _annotations(old), _annotations(new)
    errors: list[FieldError] = []
    if before.get(CREATOR, "") != after.get(CREATOR, ""):
        errors.append(FieldError("annotation value is immutable", (CREATOR,)))
    modifier = after.get(LAST_MODIFIER, "")
    if before.get(LAST_MODIFIER, "") != modifier and same(spec, old.get("spec", {}), new.get("spec", {})):
        errors.append(invalid_value(modifier, LAST_MODIFIER))
    return errors


def _annotations(obj: JsonObject) -> dict[str, str]:
    found: dict[str, str] = obj.get("metadata", {}).get("annotations", {})
    return found
