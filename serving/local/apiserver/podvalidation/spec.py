"""The whole of a Pod's spec. Pure."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors, identifiers
from serving.local.apiserver.errors import Cause
from serving.local.apiserver.podvalidation.containers import Surroundings, all_container_causes
from serving.local.apiserver.podvalidation.quantities import resource_causes
from serving.local.apiserver.podvalidation.scheduling import scheduling_causes
from serving.local.apiserver.podvalidation.security import pod_security_causes
from serving.local.apiserver.podvalidation.volumes import volume_causes

_CHOICES: Final = (
    ("restartPolicy", ("Always", "OnFailure", "Never"), True),
    ("dnsPolicy", ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"), True),
    ("preemptionPolicy", ("PreemptLowerPriority", "Never"), False),
)
_NAMES: Final = (
    ("serviceAccountName", identifiers.subdomain),
    ("nodeName", identifiers.subdomain),
    ("hostname", identifiers.label),
    ("subdomain", identifiers.label),
    ("priorityClassName", identifiers.subdomain),
    ("runtimeClassName", identifiers.subdomain),
)
_MAX_SECONDS: Final = 2**31 - 1
_MAX_SERVERS: Final = 3
_MAX_SEARCHES: Final = 32
_MAX_SEARCH_CHARACTERS: Final = 2048
_NOT_AN_ADDRESS: Final = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"


def pod_causes(pod: JsonObject) -> list[Cause]:
    """Of a Pod that is about to be stored for the first time, besides its metadata."""
    spec = pod.get("spec") or {}
    found = spec_causes(spec, "spec", whole=True)
    if not spec.get("serviceAccountName"):
        found += _token_causes(spec, "spec.volumes")
    if spec.get("ephemeralContainers"):
        found.append(errors.forbidden_field("spec.ephemeralContainers", "cannot be set on create"))
    if spec.get("nodeName") and spec.get("schedulingGates"):
        text = "cannot be set until all schedulingGates have been cleared"
        found.append(errors.forbidden_field("spec.nodeName", text))
    return found


def spec_causes(spec: JsonObject, field: str, *, whole: bool) -> list[Cause]:
    """`whole`: of a Pod, not of a template."""
    usable, found = volume_causes(spec.get("volumes") or [], f"{field}.volumes")
    found += all_container_causes(Surroundings(spec=spec, volumes=usable, whole=whole), field)
    for name, allowed, needed in _CHOICES:
        value = spec.get(name)
        if value not in allowed and (value or needed):
            path = f"{field}.{name}"
            found.append(errors.not_supported(path, value, allowed) if value else errors.required(path))
    for name, rule in _NAMES:
        if (value := spec.get(name)) and (problems := rule(value)):
            found += identifiers.causes(f"{field}.{name}", value, problems)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _MAX_SECONDS:
        text = identifiers.between(1, _MAX_SECONDS)
        found.append(errors.invalid_value(f"{field}.activeDeadlineSeconds", deadline, text))
    found += pod_security_causes(spec, f"{field}.securityContext")
    found += scheduling_causes(spec, field)
    found += _network_causes(spec, field, whole=whole)
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        kind = gate.get("conditionType") or ""
        path = f"{field}.readinessGates[{index}].conditionType"
        found += identifiers.causes(path, kind, identifiers.qualified(kind))
    if overhead := spec.get("overhead"):
        found += resource_causes({"limits": overhead}, f"{field}.overhead")
    return found


def _token_causes(spec: JsonObject, field: str) -> list[Cause]:
    text = "must not be specified when serviceAccountName is not set"
    return [
        errors.forbidden_field(f"{field}[{index}].projected.sources[{at}].serviceAccountToken", text)
        for index, volume in enumerate(spec.get("volumes") or ())
        for at, source in enumerate((volume.get("projected") or {}).get("sources") or ())
        if source.get("serviceAccountToken") is not None
    ]


def _network_causes(spec: JsonObject, field: str, *, whole: bool) -> list[Cause]:
    found = _dns_causes(spec.get("dnsConfig"), spec.get("dnsPolicy"), f"{field}.dnsConfig")
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        path = f"{field}.hostAliases[{index}]"
        found += _address_causes(alias.get("ip") or "", f"{path}.ip")
        for at, name in enumerate(alias.get("hostnames") or ()):
            found += identifiers.causes(f"{path}.hostnames[{at}]", name, identifiers.subdomain(name))
    if not spec.get("hostNetwork"):
        return found
    for index, container in enumerate(spec.get("containers") or ()):
        for at, port in enumerate(container.get("ports") or ()):
            host = port.get("hostPort") or 0
            if (whole or host) and host != port.get("containerPort"):
                path = f"{field}.containers[{index}].ports[{at}].hostPort"
                text = "must match `containerPort` when `hostNetwork` is true"
                found.append(errors.invalid_value(path, host, text))
    return found


def _address_causes(address: str, field: str) -> list[Cause]:
    try:
        # Zeros in front of a number are let through, as they always were.
        ipaddress.ip_address(re.sub(r"(?<![0-9a-fA-F:])0+(?=\d)", "", address))
    except ValueError:
        return [errors.invalid_value(field, address, _NOT_AN_ADDRESS)]
    return []


def _dns_causes(config: Any, policy: Any, field: str) -> list[Cause]:
    servers, searches = (config or {}).get("nameservers") or (), (config or {}).get("searches") or ()
    if policy == "None" and config is None:
        return [errors.required(field, "must provide `dnsConfig` when `dnsPolicy` is None")]
    if policy == "None" and not servers:
        text = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        return [errors.required(f"{field}.nameservers", text)]
    found: list[Cause] = []
    if len(servers) > _MAX_SERVERS:
        text = f"must not have more than {_MAX_SERVERS} nameservers"
        found.append(errors.invalid_value(f"{field}.nameservers", servers, text))
    for index, server in enumerate(servers):
        found += _address_causes(server, f"{field}.nameservers[{index}]")
    if len(searches) > _MAX_SEARCHES:
        text = f"must not have more than {_MAX_SEARCHES} search paths"
        found.append(errors.invalid_value(f"{field}.searches", searches, text))
    if len(" ".join(searches)) > _MAX_SEARCH_CHARACTERS:
        text = f"must not have more than {_MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list"
        found.append(errors.invalid_value(f"{field}.searches", searches, text))
    for index, search in enumerate(searches):
        name = search.removesuffix(".")
        if search != "." and (problems := identifiers.search_domain(name)):
            found += identifiers.causes(f"{field}.searches[{index}]", name, problems)
    for index, option in enumerate((config or {}).get("options") or ()):
        if not option.get("name"):
            found.append(errors.required(f"{field}.options[{index}]", "must not be empty"))
    return found
