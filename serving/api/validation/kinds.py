"""Rules for whole objects of each kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from serving.api.config.domain import CLUSTER_DOMAIN
from serving.api.config.store import ApiConfig
from serving.api.errors import FieldError, disallowed_fields, missing_field, under
from serving.api.keys import CONFIGURATION, SERVICE
from serving.api.meta import JsonObject
from serving.api.names import domain_name_problems, quote
from serving.api.schema.canonical import without_nulls
from serving.api.schema.kinds import (
    CONFIGURATION_SPEC,
    DOMAIN_MAPPING_SPEC,
    KINDS,
    ROUTE_SPEC,
    SERVICE_SPEC,
)
from serving.api.validation.annotations import (
    validate_autoscaling,
    validate_no_autoscaling,
    validate_rollout_duration,
)
from serving.api.validation.metadata import validate_name, validate_owner_label, validate_user_info
from serving.api.validation.revision import (
    validate_immutable,
    validate_name_change,
    validate_revision_spec,
    validate_template,
)
from serving.api.validation.traffic import validate_traffic


def validate_object(obj: JsonObject, *, old: JsonObject | None, config: ApiConfig) -> list[FieldError]:
    """Errors and warnings, unmerged. Unknown kinds have none."""
    kind = obj.get("kind", "")
    validator = _VALIDATORS.get(kind)
    if validator is None:
        return []
    table = KINDS[kind]
    return validator(without_nulls(table, obj), None if old is None else without_nulls(table, old), config)


def _validate_service(obj: JsonObject, old: JsonObject | None, config: ApiConfig) -> list[FieldError]:
    metadata, spec = obj.get("metadata", {}), obj.get("spec", {})
    annotations = metadata.get("annotations", {})
    errors = validate_name(metadata)
    errors += under("annotations", validate_no_autoscaling(annotations) + validate_rollout_duration(annotations))
    errors = under("metadata", errors)
    template = spec.get("template", {})
    errors += under("spec.template", validate_template(template, parent=metadata, config=config))
    errors += under("spec.traffic", validate_traffic(spec.get("traffic", []), has_configuration=True))
    if old is not None:
        errors += under("metadata.annotations", validate_user_info(SERVICE_SPEC, old, obj))
        errors += under("spec.template", validate_name_change(_template(old), template))
    return errors


def _validate_configuration(obj: JsonObject, old: JsonObject | None, config: ApiConfig) -> list[FieldError]:
    metadata = obj.get("metadata", {})
    errors = validate_name(metadata)
    errors += under("annotations", validate_no_autoscaling(metadata.get("annotations", {})))
    errors += under("labels", validate_owner_label(metadata, SERVICE, "Service"))
    errors = under("metadata", errors)
    template = _template(obj)
    errors += under("spec.template", validate_template(template, parent=metadata, config=config))
    if old is not None:
        if "ownerReferences" not in metadata:
            errors += under("metadata.annotations", validate_user_info(CONFIGURATION_SPEC, old, obj))
        errors += under("spec.template", validate_name_change(_template(old), template))
    return errors


def _validate_revision(obj: JsonObject, old: JsonObject | None, config: ApiConfig) -> list[FieldError]:
    metadata, spec = obj.get("metadata", {}), obj.get("spec", {})
    errors = validate_name(metadata)
    errors += under("annotations", validate_autoscaling(metadata.get("annotations", {}), config.autoscaler))
    errors += under("labels", validate_owner_label(metadata, CONFIGURATION, "Configuration"))
    errors = under("metadata", errors)
    if old is not None:
        # A forbidden change is all that upstream reports.
        return validate_immutable(old.get("spec", {}), spec) or errors
    return errors + under("spec", validate_revision_spec(spec, config))


def _validate_route(obj: JsonObject, old: JsonObject | None, config: ApiConfig) -> list[FieldError]:
    metadata = obj.get("metadata", {})
    annotations = metadata.get("annotations", {})
    errors = validate_name(metadata)
    errors += under("labels", validate_owner_label(metadata, SERVICE, "Service"))
    errors += under("annotations", validate_no_autoscaling(annotations) + validate_rollout_duration(annotations))
    errors = under("metadata", errors)
    traffic = obj.get("spec", {}).get("traffic", [])
    errors += under("spec.traffic", validate_traffic(traffic, has_configuration=False))
    if old is not None and "ownerReferences" not in metadata:
        errors += under("metadata.annotations", validate_user_info(ROUTE_SPEC, old, obj))
    return errors


def _validate_domain_mapping(obj: JsonObject, old: JsonObject | None, config: ApiConfig) -> list[FieldError]:
    metadata = obj.get("metadata", {})
    name = metadata.get("name", "")
    errors: list[FieldError] = []
    if metadata.get("generateName"):
        errors.append(disallowed_fields("generateName"))
    problems = domain_name_problems(name, field="name")
    if problems:
        errors.append(FieldError(f"invalid name {quote(name)}: {problems[0]}", ("name",)))
    if name.endswith(f".{CLUSTER_DOMAIN}"):
        rule = f"must not be a subdomain of cluster local domain {quote(CLUSTER_DOMAIN)}"
        errors.append(FieldError(f"invalid name {quote(name)}: {rule}", ("name",)))
    if old is not None:
        errors += under("annotations", validate_user_info(DOMAIN_MAPPING_SPEC, old, obj))
    ref = obj.get("spec", {}).get("ref", {})
    return under("metadata", errors) + under("spec.ref", _validate_reference(ref, metadata.get("namespace", "")))


def _validate_reference(ref: JsonObject, namespace: str) -> list[FieldError]:
    errors = [missing_field(key) for key in ("name", "apiVersion", "kind") if not ref.get(key)]
    if ref.get("group"):
        errors.append(disallowed_fields("group"))
    target = ref.get("namespace", "")
    if target and namespace and target != namespace:
        details = f"parent namespace: {quote(namespace)} does not match ref: {quote(target)}"
        errors.append(FieldError("mismatched namespaces", ("namespace",), details))
    return errors


def _template(obj: JsonObject) -> JsonObject:
    found: JsonObject = obj.get("spec", {}).get("template", {})
    return found


_Validator = Callable[[JsonObject, JsonObject | None, ApiConfig], list[FieldError]]
_VALIDATORS: Final[dict[str, _Validator]] = {
    "Service": _validate_service,
    "Configuration": _validate_configuration,
    "Revision": _validate_revision,
    "Route": _validate_route,
    "DomainMapping": _validate_domain_mapping,
}
