"""Deployments are only stored: nothing acts on them, but they are defaulted and checked as if something did."""

from __future__ import annotations

from typing import Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors
from serving.local.apiserver.errors import Cause
from serving.local.apiserver.podspec import default_pod_spec
from serving.local.apiserver.podvalidation.spec import spec_causes
from serving.local.apiserver.selectors import from_label_selector, match_labels

_STRATEGIES: Final = ("Recreate", "RollingUpdate")


def default_deployment(obj: JsonObject, _old: JsonObject | None) -> None:
    """In place."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    template = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    default_pod_spec(template.setdefault("spec", {}), "Deployment")


def deployment_causes(obj: JsonObject, old: JsonObject | None) -> list[Cause]:
    spec = obj["spec"]
    found: list[Cause] = []
    if spec["replicas"] < 0:
        detail = "must be greater than or equal to 0"
        found.append(errors.invalid_value("spec.replicas", spec["replicas"], detail))
    found += _selector_causes(spec, old)
    strategy = spec["strategy"].get("type")
    if strategy not in _STRATEGIES:
        shown = {"Type": strategy, "RollingUpdate": spec["strategy"].get("rollingUpdate")}
        found.append(errors.not_supported("spec.strategy", shown, _STRATEGIES))
    template = spec["template"]["spec"]
    causes = spec_causes(template, "spec.template.spec", whole=False)
    if template.get("restartPolicy") != "Always" and not causes:
        field = "spec.template.spec.restartPolicy"
        found.append(errors.not_supported(field, template.get("restartPolicy"), ("Always",)))
    return found + causes


def _selector_causes(spec: JsonObject, old: JsonObject | None) -> list[Cause]:
    selector = spec.get("selector")
    if old is not None and selector != old["spec"].get("selector"):
        return [errors.invalid_value("spec.selector", selector, "field is immutable")]
    found: list[Cause] = []
    labels = (spec["template"].get("metadata") or {}).get("labels") or {}
    if selector is None:
        found.append(errors.required("spec.selector"))
    elif not selector:
        return [errors.invalid_value("spec.selector", {}, "empty selector is invalid for deployment")]
    if selector is None or not match_labels(from_label_selector(selector), labels):
        detail = "`selector` does not match template `labels`"
        found.append(errors.invalid_value("spec.template.metadata.labels", labels, detail))
    return found
