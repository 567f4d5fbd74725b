"""Rules for Revisions and the templates that make them: spec, name, immutability."""

from __future__ import annotations

from serving.api.config.store import ApiConfig
from serving.api.errors import FieldError, disallowed_fields, invalid_value, out_of_bounds, under
from serving.api.meta import JsonObject
from serving.api.names import dns1035_label_problems, quote
from serving.api.schema.canonical import short_diff
from serving.api.schema.kinds import REVISION_SPEC, REVISION_TEMPLATE
from serving.api.validation.annotations import validate_template_annotations
from serving.api.validation.context import PodRules
from serving.api.validation.metadata import listed
from serving.api.validation.podspec import pod_warnings, validate_pod_spec


def validate_revision_spec(spec: JsonObject, config: ApiConfig) -> list[FieldError]:
    defaults = config.defaults
    rules = PodRules(features=config.features, defaults=defaults)
    errors = validate_pod_spec(spec, rules) + pod_warnings(spec, config.features)
    timeout, longest = spec.get("timeoutSeconds", 0), defaults.max_revision_timeout_seconds
    if timeout != 0 and not 0 <= timeout <= longest:
        errors.append(out_of_bounds(timeout, 0, longest, "timeoutSeconds"))
    concurrency = spec.get("containerConcurrency")
    if concurrency is not None:
        low = 0 if defaults.allow_container_concurrency_zero else 1
        high = defaults.container_concurrency_max_limit
        if not low <= concurrency <= high:
            errors.append(out_of_bounds(concurrency, low, high, "containerConcurrency"))
    return errors


def validate_template(template: JsonObject, *, parent: JsonObject, config: ApiConfig) -> list[FieldError]:
    """`parent`: metadata of the Service or Configuration."""
    metadata = template.get("metadata", {})
    errors = under("spec", validate_revision_spec(template.get("spec", {}), config))
    found = validate_template_annotations(metadata.get("annotations", {}), config.autoscaler)
    errors += under("metadata.annotations", found)
    return errors + _validate_template_name(metadata, parent)


def _validate_template_name(metadata: JsonObject, parent: JsonObject) -> list[FieldError]:
    name, generated = metadata.get("name", ""), metadata.get("generateName", "")
    if generated:
        problems = dns1035_label_problems(generated, prefix=True)
        if problems:
            text = f"not a DNS 1035 label prefix: {listed(problems)}"
            return [invalid_value(text, "metadata.generateName")]
    if not name:
        return []
    problems = dns1035_label_problems(name)
    if problems:
        return [invalid_value(f"not a DNS 1035 label: {listed(problems)}", "metadata.name")]
    if not parent.get("name") and parent.get("generateName"):
        return [disallowed_fields("metadata.name")]
    prefix = f"{parent.get('name', '')}-"
    if not name.startswith(prefix):
        return [invalid_value(f"{quote(name)} must have prefix {quote(prefix)}", "metadata.name")]
    return []


def validate_name_change(old: JsonObject, new: JsonObject) -> list[FieldError]:
    """A template whose Revision's name the user brought may only change together with the name."""
    name = new.get("metadata", {}).get("name", "")
    if not name or name != old.get("metadata", {}).get("name", ""):
        return []
    diff = short_diff(REVISION_TEMPLATE, old, new, root="{*v1.RevisionTemplateSpec}")
    if not diff:
        return []
    message = "Saw the following changes without a name change (-old +new)"
    return [FieldError(message, ("metadata.name",), diff)]


def validate_immutable(old: JsonObject, new: JsonObject) -> list[FieldError]:
    """A Revision's spec never changes."""
    diff = short_diff(REVISION_SPEC, old, new, root="{v1.RevisionSpec}")
    return [FieldError("Immutable fields changed (-old +new)", ("spec",), diff)] if diff else []
