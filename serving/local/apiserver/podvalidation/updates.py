"""What may change in a Pod that exists: hardly anything. Pure."""

from __future__ import annotations

from typing import Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors, identifiers
from serving.local.apiserver.errors import Cause
from serving.local.apiserver.podvalidation.spec import spec_causes

_FIXED_TEXT: Final = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_GRACE: Final = "terminationGracePeriodSeconds"
_DEADLINE: Final = "activeDeadlineSeconds"
_MAX_SECONDS: Final = 2**31 - 1
_JUDGED_APART: Final = frozenset({_DEADLINE, "tolerations", "schedulingGates", "containers", "initContainers"})


def update_causes(new: JsonObject, old: JsonObject, *, binding: bool) -> list[Cause]:
    """`binding` sets nodeName too. A spec that is as before is not judged anew."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if binding:
        before = {**before, "nodeName": after.get("nodeName")}
    if after == before:
        return []
    found = spec_causes(after, "spec", whole=True)
    for name in ("containers", "initContainers"):
        if len(after.get(name) or ()) != len(before.get(name) or ()):
            text = "pod updates may not add or remove containers"
            return [*found, errors.forbidden_field(f"spec.{name}", text)]
    stop, wrong = _deadline_causes(after.get(_DEADLINE), before.get(_DEADLINE))
    found += wrong
    if stop:
        return found
    found += _toleration_causes(after, before) + _gate_causes(after, before)
    if _fixed(after, before) != _fixed(before, before):
        found.append(errors.forbidden_field("spec", _FIXED_TEXT))
    return found


def _deadline_causes(new: int | None, old: int | None) -> tuple[bool, list[Cause]]:
    """Whether there is no use in looking further, and what is wrong."""
    field = f"spec.{_DEADLINE}"
    if new is None:
        text = "must not update from a positive integer to nil value"
        return False, [] if old is None else [errors.invalid_value(field, None, text)]
    if not 0 <= new <= _MAX_SECONDS:
        return True, [errors.invalid_value(field, new, identifiers.between(0, _MAX_SECONDS))]
    if old is not None and old < new:
        return True, [errors.invalid_value(field, new, "must be less than or equal to previous value")]
    return False, []


def _toleration_causes(after: JsonObject, before: JsonObject) -> list[Cause]:
    kept = [_without_seconds(each) for each in after.get("tolerations") or ()]
    if all(_without_seconds(each) in kept for each in before.get("tolerations") or ()):
        return []
    text = "existing toleration can not be modified except its tolerationSeconds"
    return [errors.forbidden_field("spec.tolerations", text)]


def _without_seconds(toleration: JsonObject) -> JsonObject:
    return {name: value for name, value in toleration.items() if name != "tolerationSeconds"}


def _gate_causes(after: JsonObject, before: JsonObject) -> list[Cause]:
    known = {gate.get("name") for gate in before.get("schedulingGates") or ()}
    return [
        errors.forbidden_field(
            f"spec.schedulingGates[{index}].name",
            f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'",
        )
        for index, gate in enumerate(after.get("schedulingGates") or ())
        if gate.get("name") not in known
    ]


def _fixed(spec: JsonObject, before: JsonObject) -> JsonObject:
    """What must be the same in both; what is empty counts as absent."""
    fixed = {
        name: value for name, value in spec.items() if name not in _JUDGED_APART and value not in (None, {}, [])
    }
    if (before.get(_GRACE) or 0) < 0 and spec.get(_GRACE) == 1:
        fixed[_GRACE] = before[_GRACE]
    for field in ("containers", "initContainers"):
        fixed[field] = [
            {name: value for name, value in container.items() if name != "image"}
            for container in spec.get(field) or ()
        ]
    return fixed
