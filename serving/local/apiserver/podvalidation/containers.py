"""Containers of a Pod: regular, init and ephemeral ones. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors, identifiers
from serving.local.apiserver.errors import Cause
from serving.local.apiserver.podvalidation.environment import import_causes, variable_causes
from serving.local.apiserver.podvalidation.probes import PROBES, lifecycle_causes, probe_causes
from serving.local.apiserver.podvalidation.quantities import resource_causes
from serving.local.apiserver.podvalidation.security import security_causes
from serving.local.apiserver.podvalidation.volumes import mount_causes

_PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
_MESSAGE_POLICIES: Final = ("File", "FallbackToLogsOnError")
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_RESTARTS: Final = ("Always", "Never", "OnFailure")
_NOT_EPHEMERAL: Final = ("ports", "resources", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle")
_NOT_INIT: Final = ("lifecycle", *PROBES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What containers are judged by besides themselves. `whole`: of a Pod, not of a template."""

    spec: JsonObject
    volumes: dict[str, JsonObject]
    whole: bool

    @property
    def grace(self) -> Any:
        return self.spec.get("terminationGracePeriodSeconds")


def all_container_causes(around: Surroundings, field: str) -> list[Cause]:
    """`field`: of the Pod's spec."""
    spec = around.spec
    regular, init = spec.get("containers") or (), spec.get("initContainers") or ()
    found = [] if regular else [errors.required(f"{field}.containers")]
    names: set[str] = set()
    ports: set[str] = set()
    for index, container in enumerate(regular):
        path = f"{field}.containers[{index}]"
        found += _common_causes(container, around, path)
        found += _name_causes(container, names, path)
        found += _running_causes(container, around, path)
        found += _restart_causes(container, path)
        found += _host_port_causes(container, ports, path)
    for index, container in enumerate(init):
        path = f"{field}.initContainers[{index}]"
        found += _common_causes(container, around, path)
        found += _restart_causes(container, path)
        found += _name_causes(container, names, path)
        found += _host_port_causes(container, set(), path)
        if container.get("restartPolicy") == "Always":
            found += _running_causes(container, around, path)
        else:
            text = "may not be set for init containers without restartPolicy=Always"
            given = [name for name in _NOT_INIT if container.get(name) is not None]
            found += [errors.forbidden_field(f"{path}.{name}", text) for name in given]
    if spec.get("ephemeralContainers"):
        found += _ephemeral_causes(around, names, f"{field}.ephemeralContainers")
    return found


def _name_causes(container: JsonObject, names: set[str], field: str) -> list[Cause]:
    """Names are unique in the whole Pod; `names` gains this one."""
    name = container.get("name") or ""
    if name in names:
        return [errors.duplicate_value(f"{field}.name", name)]
    if name:
        names.add(name)
    return []


def _running_causes(container: JsonObject, around: Surroundings, field: str) -> list[Cause]:
    """Of a container that runs as long as the Pod."""
    found = probe_causes(container, field, grace=around.grace)
    if container.get("lifecycle") is not None:
        found += lifecycle_causes(
            container["lifecycle"], f"{field}.lifecycle", grace=around.grace, system=around.spec.get("os")
        )
    return found


def _restart_causes(container: JsonObject, field: str) -> list[Cause]:
    policy = container.get("restartPolicy")
    if policy is None:
        if not container.get("restartPolicyRules"):
            return []
        text = "must specify restartPolicy when restart rules are used"
        return [errors.required(f"{field}.restartPolicy", text)]
    return [] if policy in _RESTARTS else [errors.not_supported(f"{field}.restartPolicy", policy, _RESTARTS)]


def _common_causes(container: JsonObject, around: Surroundings, field: str) -> list[Cause]:
    found: list[Cause] = []
    name, image = container.get("name") or "", container.get("image") or ""
    if not name:
        found.append(errors.required(f"{field}.name"))
    elif problems := identifiers.label(name):
        found += identifiers.causes(f"{field}.name", name, problems)
    if not image:
        found.append(errors.required(f"{field}.image"))
    elif around.whole and image.strip() != image:
        text = "must not have leading or trailing whitespace"
        found.append(errors.invalid_value(f"{field}.image", image, text))
    found += _choice(container, "terminationMessagePolicy", _MESSAGE_POLICIES, field)
    found += _choice(container, "imagePullPolicy", _PULL_POLICIES, field)
    if ports := container.get("ports"):
        found += _port_causes(ports, f"{field}.ports")
    if variables := container.get("env"):
        found += variable_causes(variables, f"{field}.env")
    if imports := container.get("envFrom"):
        found += import_causes(imports, f"{field}.envFrom")
    if container.get("volumeMounts"):
        found += mount_causes(container, around.volumes, f"{field}.volumeMounts")
    if resources := container.get("resources"):
        found += resource_causes(resources, f"{field}.resources")
    if context := container.get("securityContext"):
        host_users = around.spec.get("hostUsers") is not False
        found += security_causes(context, f"{field}.securityContext", host_users=host_users)
    return found


def _choice(container: JsonObject, name: str, allowed: tuple[str, ...], field: str) -> list[Cause]:
    value = container.get(name) or ""
    if value in allowed:
        return []
    path = f"{field}.{name}"
    return [errors.not_supported(path, value, allowed) if value else errors.required(path)]


def _port_causes(ports: list[JsonObject], field: str) -> list[Cause]:
    found: list[Cause] = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        path = f"{field}[{index}]"
        if name := port.get("name"):
            if problems := identifiers.port_name(name):
                found += identifiers.causes(f"{path}.name", name, problems)
            elif name in names:
                found.append(errors.duplicate_value(f"{path}.name", name))
            names.add(name)
        if not port.get("containerPort"):
            found.append(errors.required(f"{path}.containerPort"))
        for kind in ("containerPort", "hostPort"):
            if number := port.get(kind):
                texts = identifiers.port_number(number)
                found += [errors.invalid_value(f"{path}.{kind}", number, text) for text in texts]
        found += _choice(port, "protocol", _PROTOCOLS, path)
    return found


def _host_port_causes(container: JsonObject, taken: set[str], field: str) -> list[Cause]:
    found: list[Cause] = []
    for index, port in enumerate(container.get("ports") or ()):
        if not port.get("hostPort"):
            continue
        place = f"{port.get('protocol')}/{port.get('hostIP') or ''}/{port['hostPort']}"
        if place in taken:
            found.append(errors.duplicate_value(f"{field}.ports[{index}].hostPort", place))
        taken.add(place)
    return found


def _ephemeral_causes(around: Surroundings, names: set[str], field: str) -> list[Cause]:
    others, found = frozenset(names), []
    text = "cannot be set for an Ephemeral Container"
    for index, container in enumerate(around.spec["ephemeralContainers"]):
        path = f"{field}[{index}]"
        found += _common_causes(container, around, path) + _name_causes(container, names, path)
        target = container.get("targetContainerName")
        if target and target not in others:
            missing = f'Not found: "{target}"'
            found.append(Cause(f"{path}.targetContainerName", "FieldValueNotFound", missing))
        given = [name for name in _NOT_EPHEMERAL if container.get(name)]
        found += [errors.forbidden_field(f"{path}.{name}", text) for name in given]
    return found
