"""Rules for `spec.traffic` of a Service and a Route."""

from __future__ import annotations

from serving.api.errors import (
    CURRENT,
    FieldError,
    disallowed_fields,
    invalid_key_name,
    invalid_value,
    missing_one_of,
    multiple_one_of,
    out_of_bounds,
    under,
)
from serving.api.meta import JsonObject
from serving.api.names import dns1035_label_problems, qualified_name_problems, quote
from serving.api.validation.metadata import listed


def validate_traffic(targets: list[JsonObject], *, has_configuration: bool) -> list[FieldError]:
    """`has_configuration`: the targets' Configuration is given (they belong to a Service)."""
    errors: list[FieldError] = []
    first: dict[str, int] = {}
    for index, target in enumerate(targets):
        errors += under(f"[{index}]", _validate_target(target, has_configuration=has_configuration))
        tag = target.get("tag", "")
        if not tag:
            continue
        problems = dns1035_label_problems(tag)
        if problems:
            errors.append(invalid_value(f"not a DNS 1035 label: {listed(problems)}", f"tag[{index}]"))
        if tag in first:
            paths = (f"[{index}].tag", f"[{first[tag]}].tag")
            errors.append(FieldError(f"Multiple definitions for {quote(tag)}", paths))
        else:
            first[tag] = index
    total = sum(target.get("percent", 0) for target in targets)
    if total != 100:
        errors.append(FieldError(f"Traffic targets sum to {total}, want 100", (CURRENT,)))
    return errors


def _validate_target(target: JsonObject, *, has_configuration: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    revision, latest = target.get("revisionName", ""), target.get("latestRevision")
    if latest is not None and bool(revision) == latest:
        shown = str(latest).lower()
        message = f"may not set revisionName {quote(revision)} when latestRevision is {shown}"
        errors.append(FieldError(message, ("latestRevision",)))
    errors += _validate_names(revision, target.get("configurationName", ""), has_configuration=has_configuration)
    percent = target.get("percent", 0)
    if not 0 <= percent <= 100:
        errors.append(out_of_bounds(percent, 0, 100, "percent"))
    if target.get("url"):
        errors.append(disallowed_fields("url"))
    return errors


def _validate_names(revision: str, configuration: str, *, has_configuration: bool) -> list[FieldError]:
    if has_configuration and configuration:
        return [disallowed_fields("configurationName")]
    if revision and configuration:
        return [multiple_one_of("revisionName", "configurationName")]
    for value, path in ((revision, "revisionName"), (configuration, "configurationName")):
        if value:
            problems = qualified_name_problems(value)
            return [invalid_key_name(value, path, ", ".join(problems))] if problems else []
    return [] if has_configuration else [missing_one_of("revisionName", "configurationName")]
