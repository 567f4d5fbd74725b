"""Rules for the pod spec inside a Revision."""

from __future__ import annotations

from typing import Final

from serving.api.config.features import DISABLED, ENABLED, FeaturesConfig
from serving.api.errors import WARNING, FieldError, invalid_value, missing_field, out_of_bounds, under
from serving.api.meta import JsonObject
from serving.api.names import dns1123_subdomain_problems, quote
from serving.api.schema.core import POD_SECURITY_CONTEXT, POD_SPEC
from serving.api.validation.container import validate_container, validate_ids
from serving.api.validation.context import PodRules, Role, only_fields
from serving.api.validation.numbers import MAX_INT32
from serving.api.validation.probes import ServingPort
from serving.api.validation.volumes import validate_volumes

_ALWAYS: Final = ("serviceAccountName", "containers", "volumes", "imagePullSecrets", "enableServiceLinks")
_GATED: Final = {
    "affinity": "podspec_affinity",
    "topologySpreadConstraints": "podspec_topologyspreadconstraints",
    "hostAliases": "podspec_hostaliases",
    "nodeSelector": "podspec_nodeselector",
    "runtimeClassName": "podspec_runtimeclassname",
    "tolerations": "podspec_tolerations",
    "shareProcessNamespace": "podspec_shareprocessnamespace",
    "priorityClassName": "podspec_priorityclassname",
    "schedulerName": "podspec_schedulername",
    "initContainers": "podspec_init_containers",
    "dnsPolicy": "podspec_dnspolicy",
    "dnsConfig": "podspec_dnsconfig",
    "hostIPC": "podspec_hostipc",
    "hostPID": "podspec_hostpid",
    "hostNetwork": "podspec_hostnetwork",
}
"""Field of the pod spec to the flag that opens it."""
_POD_SECURITY: Final = (
    "runAsUser",
    "runAsGroup",
    "runAsNonRoot",
    "fsGroup",
    "supplementalGroups",
    "seccompProfile",
)


def validate_pod_spec(spec: JsonObject, rules: PodRules) -> list[FieldError]:
    features = rules.features
    errors = only_fields(POD_SPEC, spec, _allowed_fields(spec, features))
    errors += under("securityContext", _validate_security(spec.get("securityContext"), features))
    containers, init_containers = spec.get("containers", []), spec.get("initContainers", [])
    mounted = {
        mount.get("name", "")
        for container in (*init_containers, *containers)
        for mount in container.get("volumeMounts", ())
    }
    volumes, found = validate_volumes(spec.get("volumes", []), mounted=mounted, rules=rules)
    errors += under("volumes", found)
    errors += _validate_init_containers(init_containers, containers, volumes, rules)
    port, found = _serving_port(containers)
    errors += under("containers[*]", found)
    errors += _validate_containers(containers, port, volumes, rules)
    account = spec.get("serviceAccountName", "")
    if account:
        errors += [
            invalid_value(account, "serviceAccountName", problem)
            for problem in dns1123_subdomain_problems(account)
        ]
    return errors


def _allowed_fields(spec: JsonObject, features: FeaturesConfig) -> set[str]:
    allowed = {*_ALWAYS, *(field for field, flag in _GATED.items() if getattr(features, flag) != DISABLED)}
    if spec.get("automountServiceAccountToken") is False:
        allowed.add("automountServiceAccountToken")
    if features.podspec_securitycontext != DISABLED or features.secure_pod_defaults != DISABLED:
        allowed.add("securityContext")
    return allowed


def _validate_security(context: JsonObject | None, features: FeaturesConfig) -> list[FieldError]:
    if context is None:
        return []
    allowed: tuple[str, ...] = ()
    if features.podspec_securitycontext != DISABLED:
        allowed = _POD_SECURITY
    elif features.secures_pods:
        profile = context.get("seccompProfile", {})
        if profile.get("type") in ("RuntimeDefault", "Unconfined") and "localhostProfile" not in profile:
            allowed = ("seccompProfile",)
    errors = only_fields(POD_SECURITY_CONTEXT, context, allowed)
    errors += validate_ids(context, ("runAsUser", "runAsGroup", "fsGroup"))
    for index, group in enumerate(context.get("supplementalGroups", ())):
        if not 0 <= group <= MAX_INT32:
            errors.append(out_of_bounds(group, 0, MAX_INT32, f"supplementalGroups[{index}]"))
    return errors


def _validate_init_containers(
    containers: list[JsonObject], others: list[JsonObject], volumes: dict[str, JsonObject], rules: PodRules
) -> list[FieldError]:
    if not containers:
        return []
    if rules.features.podspec_init_containers != ENABLED:
        found = f"but found {len(containers)} init containers"
        return [FieldError(f"pod spec support for init-containers is off, {found}")]
    taken = {container.get("name", "") for container in others}
    errors: list[FieldError] = []
    for index, container in enumerate(containers):
        name = container.get("name", "")
        if name in taken:
            errors.append(FieldError(f"duplicate container name {quote(name)}", ("name",)))
            errors = under(f"containers[{index}]", errors)
        found_here = validate_container(container, role=Role.INIT, port=None, volumes=volumes, rules=rules)
        errors += under(f"containers[{index}]", found_here)
    return errors


def _serving_port(containers: list[JsonObject]) -> tuple[ServingPort, list[FieldError]]:
    port: JsonObject = {}
    count = 0
    for container in containers:
        ports = container.get("ports", [])
        if ports:
            count += len(ports)
            port = ports[0]
    serving = ServingPort(port.get("name") or "http", port.get("containerPort") or 8080)
    if count == 0 and len(containers) > 1:
        return serving, [missing_field("ports")]
    if count > 1:
        details = "Only a single port is allowed across all containers"
        return serving, [FieldError("more than one container port is set", ("ports",), details)]
    return serving, []


def _validate_containers(
    containers: list[JsonObject], port: ServingPort, volumes: dict[str, JsonObject], rules: PodRules
) -> list[FieldError]:
    if not containers:
        return [missing_field("containers")]
    if len(containers) == 1:
        found = validate_container(containers[0], role=Role.SERVING, port=port, volumes=volumes, rules=rules)
        return under("containers[0]", found)
    if rules.features.multi_container != ENABLED:
        return [FieldError(f"multi-container is off, but found {len(containers)} containers")]
    errors: list[FieldError] = []
    taken: set[str] = set()
    for index, container in enumerate(containers):
        name = container.get("name", "")
        if name in taken:
            # Upstream prefixes what it found before as well; the texts are part of the contract.
            errors.append(FieldError(f"duplicate container name {quote(name)}", ("name",)))
            errors = under(f"containers[{index}]", errors)
        taken.add(name)
        role = Role.SERVING if container.get("ports") else Role.SIDECAR
        found = validate_container(container, role=role, port=port, volumes=volumes, rules=rules)
        errors += under(f"containers[{index}]", found)
    return errors


def pod_warnings(spec: JsonObject, features: FeaturesConfig) -> list[FieldError]:
    """Security settings that are insecure because nobody set them. They refuse nothing."""
    if features.secures_pods:
        return []
    pod = spec.get("securityContext", {})
    warnings: list[FieldError] = []
    for key in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(key, ())):
            found = _container_warnings(pod, container.get("securityContext", {}))
            warnings += under(f"{key}[{index}].securityContext", found)
    return warnings


def _container_warnings(pod: JsonObject, context: JsonObject) -> list[FieldError]:
    insecure: list[str] = []
    if "runAsNonRoot" not in pod and "runAsNonRoot" not in context:
        insecure.append("runAsNonRoot")
    if "allowPrivilegeEscalation" not in context:
        insecure.append("allowPrivilegeEscalation")
    if "seccompProfile" not in pod and "seccompProfile" not in context:
        insecure.append("seccompProfile")
    elif not pod.get("seccompProfile", {}).get("type") and not context.get("seccompProfile", {}).get("type"):
        insecure.append("seccompProfile.type")
    drop = context.get("capabilities", {}).get("drop")
    if "capabilities" not in context:
        insecure.append("capabilities")
    elif drop is None:
        insecure.append("capabilities.drop")
    text = "Kubernetes default value is insecure, Knative may default this to secure in a future release"
    warnings = [FieldError(text, (path,), level=WARNING) for path in insecure]
    if drop and drop[0] == "all":
        misspelt = FieldError("invalid value: all", ("capabilities.drop",), "Must be spelled as 'ALL'", WARNING)
        warnings.append(misspelt)
    return warnings
