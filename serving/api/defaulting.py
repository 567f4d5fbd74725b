"""What the API server stores when a user leaves something out.

Works on raw JSON: unknown fields survive, nulls go, everything else stays as it was written. Defaulting a stored
object again changes nothing, because a client that resends its manifest must not make a new Revision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from serving.api.config.defaults import DefaultsConfig
from serving.api.config.features import ENABLED, FeaturesConfig
from serving.api.config.store import ApiConfig
from serving.api.keys import CREATOR, LAST_MODIFIER
from serving.api.meta import JsonObject
from serving.api.names import child_name
from serving.api.schema.canonical import same, with_required, without_nulls
from serving.api.schema.kinds import KINDS


@dataclass(frozen=True, slots=True)
class _Context:
    """What a default may depend on besides the object itself."""

    config: ApiConfig
    old: JsonObject | None
    creating: bool


def default(obj: JsonObject, *, old: JsonObject | None, config: ApiConfig, user: str) -> JsonObject:
    """The object with its defaults, as a new value. `old` is None on create; `user` is who asked.

    Service, Configuration, Revision, Route and DomainMapping; any other kind comes back as it is. The object must
    have passed `serving.api.schema.decode.check_types`.
    """
    kind = obj.get("kind", "")
    defaulter = _DEFAULTERS.get(kind)
    if defaulter is None:
        return obj
    table = KINDS[kind]
    new: JsonObject = without_nulls(table, obj)
    baseline: JsonObject | None = None
    if old is not None:
        # The stored object may lack a default that came later; it must not look changed for that.
        baseline = without_nulls(table, old)
        defaulter(baseline, _Context(config, None, creating=False))
    if old is None or kind != "Revision":
        defaulter(new, _Context(config, baseline, creating=old is None))
    _set_user(kind, new, baseline, user)
    if isinstance(new.get("spec"), dict):
        new["spec"] = with_required(table.fields["spec"].node, new["spec"])
    return new


def default_configuration_spec(spec: JsonObject, *, config: ApiConfig) -> JsonObject:
    """A stored Configuration's spec with the defaults of today, which it may lack when it is older."""
    stored = {"kind": "Configuration", "metadata": {}, "spec": spec}
    new: JsonObject = without_nulls(KINDS["Configuration"], stored)
    _default_configuration(new, _Context(config, None, creating=False))
    defaulted: JsonObject = new["spec"]
    return defaulted


def _default_service(obj: JsonObject, context: _Context) -> None:
    _default_configuration(obj, context)
    spec = _child(obj, "spec")
    if not spec.get("traffic"):
        spec["traffic"] = [{"latestRevision": True, "percent": 100}]
    _default_traffic(spec)


def _default_configuration(obj: JsonObject, context: _Context) -> None:
    template = _child(_child(obj, "spec"), "template")
    if context.old is not None:
        name = _name(template)
        if name and name == _name(context.old.get("spec", {}).get("template", {})):
            # The user brought the name of the Revision: a default that it lacks would be a forbidden change.
            return
    template.setdefault("metadata", {})
    _default_revision_spec(_child(template, "spec"), obj.get("metadata", {}), context)


def _default_revision(obj: JsonObject, context: _Context) -> None:
    _default_revision_spec(_child(obj, "spec"), {}, context)


def _default_route(obj: JsonObject, context: _Context) -> None:
    _default_traffic(_child(obj, "spec"))


def _default_domain_mapping(obj: JsonObject, context: _Context) -> None:
    ref = _child(_child(obj, "spec"), "ref")
    namespace = obj.get("metadata", {}).get("namespace")
    if not ref.get("namespace") and namespace:
        ref["namespace"] = namespace


_DEFAULTERS: Final[dict[str, Callable[[JsonObject, _Context], None]]] = {
    "Service": _default_service,
    "Configuration": _default_configuration,
    "Revision": _default_revision,
    "Route": _default_route,
    "DomainMapping": _default_domain_mapping,
}


def _default_traffic(spec: JsonObject) -> None:
    for target in spec.get("traffic", ()):
        target.setdefault("latestRevision", not target.get("revisionName"))
        target.setdefault("percent", 0)


def _default_revision_spec(spec: JsonObject, parent: JsonObject, context: _Context) -> None:
    defaults, features = context.config.defaults, context.config.features
    _default_timeouts(spec, defaults)
    spec.setdefault("containerConcurrency", defaults.container_concurrency)
    containers, init_containers = spec.get("containers", []), spec.get("initContainers", [])
    taken = {container.get("name", "") for container in (*containers, *init_containers)}
    _default_names(containers, taken, defaults.user_container_name(parent))
    _default_names(init_containers, taken, defaults.user_init_container_name(parent))
    if containers and context.creating and defaults.enable_service_links is not None:
        spec.setdefault("enableServiceLinks", defaults.enable_service_links)
    writable = _writable_volumes(spec)
    for container in containers:
        _default_resources(container, defaults)
        _default_probes(container, serves=len(containers) == 1 or bool(container.get("ports")))
        for mount in container.get("volumeMounts", ()):
            if mount.get("name", "") not in writable:
                mount["readOnly"] = True
    if features.secures_pods:
        for container in (*containers, *init_containers):
            _default_security(container, spec.get("securityContext", {}), features)


def _default_timeouts(spec: JsonObject, defaults: DefaultsConfig) -> None:
    if not spec.get("timeoutSeconds"):
        spec["timeoutSeconds"] = defaults.revision_timeout_seconds
    for key, value in (
        ("idleTimeoutSeconds", defaults.revision_idle_timeout_seconds),
        ("responseStartTimeoutSeconds", defaults.revision_response_start_timeout_seconds),
    ):
        # A default at or above the whole timeout would never end anything.
        if key not in spec and value != 0 and value < spec["timeoutSeconds"]:
            spec[key] = value


def _default_names(containers: list[JsonObject], taken: set[str], base: str) -> None:
    suffix = 0
    for container in containers:
        if container.get("name"):
            continue
        name = base
        if len(containers) > 1 or name in taken:
            while True:
                name = child_name(base, f"-{suffix}")
                suffix += 1
                if name not in taken:
                    break
        container["name"] = name


def _default_resources(container: JsonObject, defaults: DefaultsConfig) -> None:
    resources = _child(container, "resources")
    for name, request, limit in (
        ("cpu", defaults.cpu_request, defaults.cpu_limit),
        ("memory", defaults.memory_request, defaults.memory_limit),
        ("ephemeral-storage", defaults.ephemeral_storage_request, defaults.ephemeral_storage_limit),
    ):
        if request is not None:
            _child(resources, "requests").setdefault(name, request)
        if limit is not None:
            _child(resources, "limits").setdefault(name, limit)


def _default_probes(container: JsonObject, *, serves: bool) -> None:
    if serves:
        readiness = _child(container, "readinessProbe")
        if not any(handler in readiness for handler in ("tcpSocket", "httpGet", "exec", "grpc")):
            readiness["tcpSocket"] = {"port": 0}
    probe = container.get("readinessProbe")
    if probe is not None:
        _default_number(probe, "successThreshold", 1)
        if probe.get("periodSeconds"):
            _default_number(probe, "failureThreshold", 3)
            _default_number(probe, "timeoutSeconds", 1)
    for key in ("readinessProbe", "livenessProbe", "startupProbe"):
        if "grpc" in container.get(key, {}):
            container[key]["grpc"].setdefault("service", "")


def _writable_volumes(spec: JsonObject) -> set[str]:
    kinds = ("emptyDir", "persistentVolumeClaim", "ephemeral")
    return {volume.get("name", "") for volume in spec.get("volumes", ()) if any(kind in volume for kind in kinds)}


def _default_security(container: JsonObject, pod: JsonObject, features: FeaturesConfig) -> None:
    context = _child(container, "securityContext")
    context.setdefault("allowPrivilegeEscalation", False)
    if not pod.get("seccompProfile", {}).get("type"):
        profile = _child(context, "seccompProfile")
        if not profile.get("type"):
            profile["type"] = "RuntimeDefault"
    if "capabilities" not in context:
        context["capabilities"] = {"drop": ["ALL"]}
        if any(port.get("containerPort", 0) < 1024 for port in container.get("ports", ())):
            context["capabilities"]["add"] = ["NET_BIND_SERVICE"]
    if features.secure_pod_defaults == ENABLED and "runAsNonRoot" not in pod:
        context.setdefault("runAsNonRoot", True)


def _set_user(kind: str, obj: JsonObject, old: JsonObject | None, user: str) -> None:
    """Who created and who last changed the spec. Owned objects get copies of their owner's annotations instead."""
    metadata = obj.get("metadata", {})
    if kind == "Revision" or (kind in ("Configuration", "Route") and "ownerReferences" in metadata):
        return
    if old is not None:
        spec = KINDS[kind].fields["spec"].node
        if same(spec, old.get("spec", {}), obj.get("spec", {})):
            return
        annotations = _child(_child(obj, "metadata"), "annotations")
    else:
        annotations = _child(_child(obj, "metadata"), "annotations")
        annotations[CREATOR] = user
    annotations[LAST_MODIFIER] = user


def _child(parent: JsonObject, key: str) -> JsonObject:
    """The object at `key`, added when it is absent."""
    child: Any = parent.setdefault(key, {})
    found: JsonObject = child
    return found


def _default_number(parent: JsonObject, key: str, value: int) -> None:
    if not parent.get(key):
        parent[key] = value


def _name(template: JsonObject) -> str:
    return str(template.get("metadata", {}).get("name", ""))
