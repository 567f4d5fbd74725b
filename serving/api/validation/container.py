"""Rules for one container."""

from __future__ import annotations

from typing import Any, Final

from serving.api.config.features import DISABLED, ENABLED, FeaturesConfig
from serving.api.errors import (
    CURRENT,
    FieldError,
    disallowed_fields,
    invalid_value,
    missing_field,
    missing_one_of,
    multiple_one_of,
    out_of_bounds,
    under,
)
from serving.api.meta import JsonObject
from serving.api.names import quote
from serving.api.schema.canonical import canonical
from serving.api.schema.core import (
    CAPABILITIES,
    CONTAINER,
    CONTAINER_PORT,
    ENV_VAR_SOURCE,
    RESOURCE_REQUIREMENTS,
    SECURITY_CONTEXT,
)
from serving.api.validation.context import PodRules, Role, only_fields
from serving.api.validation.image import is_image_reference
from serving.api.validation.numbers import MAX_INT32
from serving.api.validation.probes import ServingPort, validate_probe, validate_readiness_probe
from serving.api.validation.volumes import validate_mounts

_FIELDS: Final = frozenset(key for key, item in CONTAINER.fields.items() if item.served)
_RESERVED_ENV: Final = frozenset({"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"})
_RESERVED_PORTS: Final = frozenset({8008, 8012, 8013, 8022, 9090, 9091})
_PORT_NAMES: Final = ("", "h2c", "http1")
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_SECURITY_FIELDS: Final = frozenset(key for key, item in SECURITY_CONTEXT.fields.items() if item.served)


def validate_container(
    container: JsonObject,
    *,
    role: Role,
    port: ServingPort | None,
    volumes: dict[str, JsonObject],
    rules: PodRules,
) -> list[FieldError]:
    """`port` is the pod's serving port; it matters to the serving container only."""
    errors = _validate_probes(container, role, port, rules.features)
    if not canonical(CONTAINER, container):
        return [*errors, missing_field(CURRENT)]
    errors += only_fields(CONTAINER, container, _FIELDS)
    name = container.get("name", "")
    if name == "queue-proxy":
        errors.append(FieldError(f"{quote(name)} is a reserved container name", ("name",)))
    errors += under("env", _validate_env(container.get("env", []), role, rules.features))
    errors += under("envFrom", _validate_env_from(container.get("envFrom", [])))
    errors += _validate_image(container.get("image", ""))
    errors += under("ports", _validate_ports(container.get("ports", []), role))
    errors += under(
        "resources", only_fields(RESOURCE_REQUIREMENTS, container.get("resources", {}), ("limits", "requests"))
    )
    errors += under("securityContext", _validate_security(container.get("securityContext"), rules.features))
    policy = container.get("terminationMessagePolicy", "")
    if policy not in ("", "File", "FallbackToLogsOnError"):
        errors.append(invalid_value(policy, "terminationMessagePolicy"))
    mounts = container.get("volumeMounts", [])
    return errors + under("volumeMounts", validate_mounts(mounts, volumes=volumes, features=rules.features))


def _validate_probes(
    container: JsonObject, role: Role, port: ServingPort | None, features: FeaturesConfig
) -> list[FieldError]:
    if role is Role.INIT:
        forbidden = [key for key in (*_PROBES, "lifecycle") if key in container]
        return [FieldError("field not allowed in an init container", (key,)) for key in forbidden]
    if role is Role.SIDECAR and features.multi_container_probing != ENABLED:
        return _validate_no_probes(container)
    target = port if role is Role.SERVING else None
    return [
        *under("livenessProbe", validate_probe(container.get("livenessProbe"), target)),
        *under("readinessProbe", validate_readiness_probe(container.get("readinessProbe"), target)),
        *under("startupProbe", validate_probe(container.get("startupProbe"), target)),
    ]


def _validate_no_probes(container: JsonObject) -> list[FieldError]:
    errors: list[FieldError] = []
    handlers = ("exec", "httpGet", "tcpSocket", "grpc")
    for key in _PROBES:
        probe = container.get(key, {})
        # Upstream does not name the handler's field: it reports the probe itself.
        given = {CURRENT if field in handlers else field for field, value in probe.items() if _given(field, value)}
        if given:
            errors += under(key, [disallowed_fields(*sorted(given))])
    return errors


def _given(field: str, value: Any) -> bool:
    pointers = ("exec", "httpGet", "tcpSocket", "grpc", "terminationGracePeriodSeconds")
    numbers = (
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    )
    return field in pointers or (field in numbers and bool(value))


def _validate_env(env: list[JsonObject], role: Role, features: FeaturesConfig) -> list[FieldError]:
    reserved = _RESERVED_ENV if role is Role.SERVING else _RESERVED_ENV - {"PORT"}
    sources = ["configMapKeyRef", "secretKeyRef"]
    if features.podspec_fieldref != DISABLED:
        sources += ["fieldRef", "resourceFieldRef"]
    errors: list[FieldError] = []
    for index, variable in enumerate(env):
        name = variable.get("name", "")
        found: list[FieldError] = []
        if not name:
            found.append(missing_field("name"))
        elif name in reserved:
            found.append(FieldError(f"{quote(name)} is a reserved environment variable", ("name",)))
        found += under("valueFrom", only_fields(ENV_VAR_SOURCE, variable.get("valueFrom", {}), sources))
        errors += under(f"[{index}]", found)
    return errors


def _validate_env_from(sources: list[JsonObject]) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, source in enumerate(sources):
        # Upstream prefixes what it found in earlier entries too; the texts are part of the contract.
        for key in ("secretRef", "configMapRef"):
            if key in source:
                errors = under(key, under(f"[{index}]", errors))
        if "configMapRef" in source and "secretRef" in source:
            errors.append(multiple_one_of("configMapRef", "secretRef"))
        elif "configMapRef" not in source and "secretRef" not in source:
            errors.append(missing_one_of("configMapRef", "secretRef"))
    return errors


def _validate_image(image: str) -> list[FieldError]:
    if not image:
        return [missing_field("image")]
    if is_image_reference(image):
        return []
    details = f"image: {quote(image)}, error: could not parse reference: {image}"
    return [FieldError("Failed to parse image reference", ("image",), details)]


def _validate_ports(ports: list[JsonObject], role: Role) -> list[FieldError]:
    if not ports:
        return []
    if role is Role.INIT:
        return [error for port in ports for error in _validate_port(port)]
    port = ports[0]
    errors = _validate_port(port)
    protocol, name = port.get("protocol", ""), port.get("name", "")
    if protocol not in ("", "TCP"):
        errors.append(invalid_value(protocol, "protocol"))
    if name not in _PORT_NAMES:
        details = "Name must be empty, or one of: 'h2c', 'http1'"
        errors.append(FieldError(f"Port name {name} is not allowed", (CURRENT,), details))
    return errors


def _validate_port(port: JsonObject) -> list[FieldError]:
    errors = only_fields(CONTAINER_PORT, port, ("containerPort", "name", "protocol"))
    number = port.get("containerPort", 0)
    if number in _RESERVED_PORTS:
        text = f"{number} is a reserved port"
        errors.append(invalid_value(text, "containerPort", f"{text}, please use a different value"))
    if not 0 <= number <= 65535:
        errors.append(out_of_bounds(number, 0, 65535, "containerPort"))
    return errors


def _validate_security(context: JsonObject | None, features: FeaturesConfig) -> list[FieldError]:
    if context is None:
        return []
    allowed = _SECURITY_FIELDS if context.get("privileged") is False else _SECURITY_FIELDS - {"privileged"}
    errors = only_fields(SECURITY_CONTEXT, context, allowed)
    capabilities = context.get("capabilities", {})
    added = capabilities.get("add")
    may_add = features.containerspec_addcapabilities == ENABLED or (
        features.secures_pods and added == ["NET_BIND_SERVICE"]
    )
    errors += under(
        "capabilities", only_fields(CAPABILITIES, capabilities, ("add", "drop") if may_add else ("drop",))
    )
    return errors + validate_ids(context, ("runAsUser", "runAsGroup"))


def validate_ids(context: JsonObject, keys: tuple[str, ...]) -> list[FieldError]:
    """User and group ids are [0, 2147483647]."""
    return [
        out_of_bounds(context[key], 0, MAX_INT32, key)
        for key in keys
        if key in context and not 0 <= context[key] <= MAX_INT32
    ]
