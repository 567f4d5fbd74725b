"""Where a Pod may run: node selector, tolerations, affinity, spread, gates. Pure."""

from __future__ import annotations

from typing import Any, Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors, identifiers
from serving.local.apiserver.errors import Cause

_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_SPREADS: Final = ("DoNotSchedule", "ScheduleAnyway")
_POLICIES: Final = ("Honor", "Ignore")
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
_NEEDS_EXISTS: Final = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'


def scheduling_causes(spec: JsonObject, field: str) -> list[Cause]:
    found: list[Cause] = []
    for key, value in (spec.get("nodeSelector") or {}).items():
        found += identifiers.causes(f"{field}.nodeSelector", key, identifiers.qualified(key))
        found += identifiers.causes(f"{field}.nodeSelector", value, identifiers.label_value(value))
    if tolerations := spec.get("tolerations"):
        found += toleration_causes(tolerations, f"{field}.tolerations")
    if affinity := spec.get("affinity"):
        found += _affinity_causes(affinity, f"{field}.affinity")
    if constraints := spec.get("topologySpreadConstraints"):
        found += _spread_causes(constraints, f"{field}.topologySpreadConstraints")
    if gates := spec.get("schedulingGates"):
        found += _gate_causes(gates, f"{field}.schedulingGates")
    return found


def toleration_causes(tolerations: list[JsonObject], field: str) -> list[Cause]:
    found: list[Cause] = []
    for index, toleration in enumerate(tolerations):
        path, key = f"{field}[{index}]", toleration.get("key")
        operator, effect = toleration.get("operator") or "", toleration.get("effect") or ""
        if key:
            found += identifiers.causes(f"{path}.key", key, identifiers.qualified(key))
        elif operator != "Exists":
            found.append(errors.invalid_value(f"{path}.operator", operator, _NEEDS_EXISTS))
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            text = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            found.append(errors.invalid_value(f"{path}.effect", effect, text))
        found += _operator_causes(operator, toleration.get("value") or "", f"{path}.operator")
        if effect and effect not in _EFFECTS:
            found.append(errors.not_supported(f"{path}.effect", effect, _EFFECTS))
    return found


def _operator_causes(operator: str, value: str, field: str) -> list[Cause]:
    if operator in ("", "Equal"):
        problems = identifiers.label_value(value)
        return [errors.invalid_value(field, value, ";".join(problems))] if problems else []
    if operator == "Exists":
        text = "value must be empty when `operator` is 'Exists'"
        return [errors.invalid_value(field, value, text)] if value else []
    allowed = ("Equal", "Exists", "Lt", "Gt") if operator in ("Lt", "Gt") else ("Equal", "Exists")
    return [errors.not_supported(field, operator, allowed)]


def _gate_causes(gates: list[JsonObject], field: str) -> list[Cause]:
    found: list[Cause] = []
    seen: set[str] = set()
    for index, gate in enumerate(gates):
        name = gate.get("name") or ""
        found += identifiers.causes(f"{field}[{index}]", name, identifiers.qualified(name))
        if name in seen:
            found.append(errors.duplicate_value(f"{field}[{index}]", name))
        seen.add(name)
    return found


def _affinity_causes(affinity: JsonObject, field: str) -> list[Cause]:
    found: list[Cause] = []
    if (node := affinity.get("nodeAffinity")) is not None:
        found += _node_affinity_causes(node, f"{field}.nodeAffinity")
    for name in ("podAffinity", "podAntiAffinity"):
        of_pods, path = affinity.get(name) or {}, f"{field}.{name}"
        for index, term in enumerate(of_pods.get(_REQUIRED) or ()):
            found += _pod_term_causes(term, f"{path}.{_REQUIRED}[{index}]")
        for index, weighted in enumerate(of_pods.get(_PREFERRED) or ()):
            item = f"{path}.{_PREFERRED}[{index}]"
            found += _weight_causes(weighted, item)
            found += _pod_term_causes(weighted.get("podAffinityTerm") or {}, f"{item}.podAffinityTerm")
    return found


def _node_affinity_causes(affinity: JsonObject, field: str) -> list[Cause]:
    found: list[Cause] = []
    if (wanted := affinity.get(_REQUIRED)) is not None:
        path = f"{field}.{_REQUIRED}.nodeSelectorTerms"
        terms = wanted.get("nodeSelectorTerms") or ()
        if not terms:
            found.append(errors.required(path, "must have at least one node selector term"))
        for index, term in enumerate(terms):
            found += _node_term_causes(term, f"{path}[{index}]", strict=True)
    for index, weighted in enumerate(affinity.get(_PREFERRED) or ()):
        item = f"{field}.{_PREFERRED}[{index}]"
        found += _weight_causes(weighted, item)
        found += _node_term_causes(weighted.get("preference") or {}, f"{item}.preference", strict=False)
    return found


def _weight_causes(weighted: JsonObject, field: str) -> list[Cause]:
    weight = weighted.get("weight") or 0
    text = "must be in the range 1-100"
    return [] if 0 < weight <= 100 else [errors.invalid_value(f"{field}.weight", weight, text)]


def _node_term_causes(term: JsonObject, field: str, *, strict: bool) -> list[Cause]:
    """`strict` judges the values too."""
    found: list[Cause] = []
    for index, wanted in enumerate(term.get("matchExpressions") or ()):
        path = f"{field}.matchExpressions[{index}]"
        values, key = wanted.get("values") or (), wanted.get("key") or ""
        found += _values_causes(wanted.get("operator") or "", values, path)
        found += identifiers.causes(f"{path}.key", key, identifiers.qualified(key))
        for at, value in enumerate(values if strict else ()):
            found += identifiers.causes(f"{path}.values[{at}]", value, identifiers.label_value(value))
    for index, wanted in enumerate(term.get("matchFields") or ()):
        found += _field_term_causes(wanted, f"{field}.matchFields[{index}]")
    return found


def _values_causes(operator: str, values: Any, field: str) -> list[Cause]:
    path = f"{field}.values"
    if operator in ("In", "NotIn"):
        text = "must be specified when `operator` is 'In' or 'NotIn'"
        return [] if values else [errors.required(path, text)]
    if operator in ("Exists", "DoesNotExist"):
        text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        return [errors.forbidden_field(path, text)] if values else []
    if operator in ("Gt", "Lt"):
        text = "must be specified single value when `operator` is 'Lt' or 'Gt'"
        return [] if len(values) == 1 else [errors.required(path, text)]
    return [errors.invalid_value(f"{field}.operator", operator, "not a valid selector operator")]


def _field_term_causes(wanted: JsonObject, field: str) -> list[Cause]:
    operator, key, values = wanted.get("operator") or "", wanted.get("key") or "", wanted.get("values") or ()
    found: list[Cause] = []
    if operator not in ("In", "NotIn"):
        found.append(errors.invalid_value(f"{field}.operator", operator, "not a valid selector operator"))
    elif len(values) != 1:
        text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        found.append(errors.required(f"{field}.values", text))
    if key != "metadata.name":
        return [*found, errors.invalid_value(f"{field}.key", key, "not a valid field selector key")]
    for index, value in enumerate(values):
        found += identifiers.causes(f"{field}.values[{index}]", value, identifiers.subdomain(value))
    return found


def _pod_term_causes(term: JsonObject, field: str) -> list[Cause]:
    found: list[Cause] = []
    for name in term.get("namespaces") or ():
        found += identifiers.causes(f"{field}.namespace", name, identifiers.label(name))
    key = term.get("topologyKey") or ""
    if not key:
        found.append(errors.required(f"{field}.topologyKey", "can not be empty"))
    return found + identifiers.causes(f"{field}.topologyKey", key, identifiers.qualified(key))


def _spread_causes(constraints: list[JsonObject], field: str) -> list[Cause]:
    found: list[Cause] = []
    for index, constraint in enumerate(constraints):
        path, skew = f"{field}[{index}]", constraint.get("maxSkew") or 0
        key, action = constraint.get("topologyKey") or "", constraint.get("whenUnsatisfiable") or ""
        if skew <= 0:
            found.append(errors.invalid_value(f"{path}.maxSkew", skew, "must be greater than 0"))
        if not key:
            found.append(errors.required(f"{path}.topologyKey", "can not be empty"))
        if action not in _SPREADS:
            found.append(errors.not_supported(f"{path}.whenUnsatisfiable", action, _SPREADS))
        later = [(each.get("topologyKey"), each.get("whenUnsatisfiable")) for each in constraints[index + 1 :]]
        if (key, action) in later:
            pair = f"{{{key}, {action}}}"
            found.append(errors.duplicate_value(f"{path}.{{topologyKey, whenUnsatisfiable}}", pair))
        found += _domain_causes(constraint.get("minDomains"), action, f"{path}.minDomains")
        for name in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if constraint.get(name) not in (None, *_POLICIES):
                found.append(errors.not_supported(f"{path}.{name}", constraint[name], _POLICIES))
    return found


def _domain_causes(domains: Any, action: str, field: str) -> list[Cause]:
    found: list[Cause] = []
    if domains is not None and domains <= 0:
        found.append(errors.invalid_value(field, domains, "must be greater than 0"))
    if domains is not None and action != "DoNotSchedule":
        text = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
        found.append(errors.invalid_value(field, domains, text))
    return found
