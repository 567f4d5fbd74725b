"""A container's environment: env, envFrom, valueFrom and `$(NAME)` references, in the kubelet's order.

`envFrom` first, later sources over earlier ones; then `env` in order, each entry over what was there. A value may
refer to whatever was set before it. The image's own environment lies below all of it and cannot be referred to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from serving.api.pod import Container, EnvVar, EnvVarSource, Pod, ResourceFieldRef
from serving.api.quantity import QuantityError, parse_quantity

_NAME_LIMIT: Final = 253


class ConfigError(Exception):
    """The container cannot be configured as written. `reason` is its waiting reason."""

    def __init__(self, message: str, *, reason: str = "CreateContainerConfigError") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class KeyedObjects(msgspec.Struct, frozen=True, kw_only=True):
    """The config maps and secrets of the pod's namespace that exist, by name; values of secrets decoded."""

    config_maps: Mapping[str, Mapping[str, bytes]] = {}
    secrets: Mapping[str, Mapping[str, bytes]] = {}


class PodFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What downward references may ask about, beyond the pod's own object."""

    pod_ip: str = ""
    host_ip: str = ""
    allocatable: Mapping[str, str] = {}
    """The node's `cpu` and `memory`, which stand for limits that are not given."""


def environment(
    container: Container,
    pod: Pod,
    objects: KeyedObjects,
    facts: PodFacts,
    *,
    services: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """`services`, below every variable that the pod sets, in order. Raises ConfigError with the kubelet's text."""
    values: dict[str, str] = dict(services or {})
    for source in container.env_from:
        if source.config_map_ref is not None:
            reference, found, kind = source.config_map_ref, objects.config_maps, "configmap"
        elif source.secret_ref is not None:
            reference, found, kind = source.secret_ref, objects.secrets, "secret"
        else:
            continue
        data = found.get(reference.name)
        if data is None and not reference.optional:
            raise ConfigError(f'{kind} "{reference.name}" not found')
        for key, value in sorted((data or {}).items()):
            if _valid_name(source.prefix + key):
                values[source.prefix + key] = value.decode(errors="replace")
    for variable in container.env:
        resolved = _value(variable, values, container, pod, objects, facts)
        if resolved is not None:
            values[variable.name] = resolved
    return values


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace `$(NAME)`; an unknown name stays as written, `$$` is one dollar."""
    out: list[str] = []
    at = 0
    while (dollar := text.find("$", at)) >= 0 and dollar + 1 < len(text):
        out.append(text[at:dollar])
        following = text[dollar + 1]
        closing = text.find(")", dollar + 2) if following == "(" else -1
        if following == "$":
            out.append("$")
            at = dollar + 2
        elif closing >= 0:
            name = text[dollar + 2 : closing]
            out.append(values.get(name, f"$({name})"))
            at = closing + 1
        else:
            out.append("$" + following)
            at = dollar + 2
    return "".join(out) + text[at:]


def with_image(image_env: tuple[str, ...], values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The image's `NAME=value` strings below the pod's variables."""
    merged = dict(entry.partition("=")[::2] for entry in image_env)
    return tuple((merged | dict(values)).items())


def field_value(path: str, pod: Pod, facts: PodFacts) -> str:
    """A `fieldRef`, for environment and volumes. Raises ConfigError."""
    meta = pod.metadata
    for prefix, entries in (("metadata.labels", meta.labels), ("metadata.annotations", meta.annotations)):
        if path.startswith(prefix + "['") and path.endswith("']"):
            return entries.get(path[len(prefix) + 2 : -2], "")
        if path == prefix:
            return "\n".join(f'{key}="{_escape(value)}"' for key, value in sorted(entries.items()))
    getter = _FIELDS.get(path)
    if getter is None:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return getter(pod, facts)


_FIELDS: Final[Mapping[str, Callable[[Pod, PodFacts], str]]] = {
    "metadata.name": lambda pod, facts: pod.metadata.name,
    "metadata.namespace": lambda pod, facts: pod.metadata.namespace,
    "metadata.uid": lambda pod, facts: pod.metadata.uid,
    "spec.nodeName": lambda pod, facts: pod.spec.node_name,
    "spec.serviceAccountName": lambda pod, facts: pod.spec.service_account_name,
    "status.hostIP": lambda pod, facts: facts.host_ip,
    "status.hostIPs": lambda pod, facts: facts.host_ip,
    "status.podIP": lambda pod, facts: facts.pod_ip,
    "status.podIPs": lambda pod, facts: facts.pod_ip,
}


def resource_value(reference: ResourceFieldRef, container: Container, pod: Pod, facts: PodFacts) -> str:
    """A `resourceFieldRef`, rounded up to whole divisors. Raises ConfigError."""
    target = container
    if reference.container_name:
        every = (*pod.spec.containers, *pod.spec.init_containers)
        named = next((c for c in every if c.name == reference.container_name), None)
        if named is None:
            raise ConfigError(f"container {reference.container_name} not found")
        target = named
    kind, _, resource = reference.resource.partition(".")
    if kind not in ("limits", "requests") or resource not in ("cpu", "memory", "ephemeral-storage"):
        raise ConfigError(f"unsupported container resource : {reference.resource}")
    limits, requests = target.resources.limits, target.resources.requests
    amount = limits.get(resource) if kind == "limits" else requests.get(resource, limits.get(resource, "0"))
    if amount is None:
        amount = facts.allocatable.get(resource, "0")
    try:
        divisor = parse_quantity(reference.divisor) or 1
        return str(math.ceil(parse_quantity(amount) / divisor))
    except QuantityError as error:
        raise ConfigError(f"resourceFieldRef {reference.resource}: {error}") from None


def _value(
    variable: EnvVar,
    values: Mapping[str, str],
    container: Container,
    pod: Pod,
    objects: KeyedObjects,
    facts: PodFacts,
) -> str | None:
    """None = leave the variable out (an optional reference to nothing)."""
    if variable.value:
        return expand(variable.value, values)
    source = variable.value_from
    if source is None:
        return ""
    if source.field_ref is not None:
        return field_value(source.field_ref.field_path, pod, facts)
    if source.resource_field_ref is not None:
        return resource_value(source.resource_field_ref, container, pod, facts)
    return _keyed(source, pod.metadata.namespace, objects)


def _keyed(source: EnvVarSource, namespace: str, objects: KeyedObjects) -> str | None:
    if source.config_map_key_ref is not None:
        selector, found, kind = source.config_map_key_ref, objects.config_maps, "ConfigMap"
    elif source.secret_key_ref is not None:
        selector, found, kind = source.secret_key_ref, objects.secrets, "Secret"
    else:
        return ""
    data = found.get(selector.name)
    if data is not None and selector.key in data:
        return data[selector.key].decode(errors="replace")
    if selector.optional:
        return None
    if data is None:
        raise ConfigError(f'{kind.lower()} "{selector.name}" not found')
    raise ConfigError(f"couldn't find key {selector.key} in {kind} {namespace}/{selector.name}")


def _valid_name(name: str) -> bool:
    """Printable ASCII without `=`: what Kubernetes lets into an environment."""
    return 0 < len(name) <= _NAME_LIMIT and all(" " <= char <= "~" and char != "=" for char in name)


def _escape(value: str) -> str:
    """As Go quotes a string, which is how the kubelet writes labels into files."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
