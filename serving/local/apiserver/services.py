"""Services: defaults by type, what may be in them, and the addresses and node ports that the server gives."""

from __future__ import annotations

import ipaddress
import random
import re
from typing import Any, Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors, identifiers, meta
from serving.local.apiserver.errors import Cause
from serving.local.apiserver.state import DELETED, Event, State

STORAGE: Final = "services"
NETWORK: Final = ipaddress.ip_network("10.96.0.0/12")
NODE_PORTS: Final = range(30000, 32768)
_TYPES: Final = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_AFFINITIES: Final = ("ClientIP", "None")
_AFFINITY_SECONDS: Final = 10800
_PORT_RANGE: Final = "must be between 1 and 65535, inclusive"
_PORT_NAME: Final = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_ATTEMPTS: Final = 1000


def default_service(obj: JsonObject, old: JsonObject | None) -> None:
    """In place."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec["sessionAffinity"] == "ClientIP":
        config = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        config.setdefault("timeoutSeconds", _AFFINITY_SECONDS)
    elif spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    for address in _ingress(obj):
        if address.get("ip"):
            address.setdefault("ipMode", "VIP")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if not port.get("targetPort"):
            port["targetPort"] = port.get("port")
    if spec["type"] == "ExternalName":
        _without_address(spec, old)
        return
    spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    _keep_given(spec, (old or {}).get("spec") or {})


def _without_address(spec: JsonObject, old: JsonObject | None) -> None:
    """A Service that stands for a name outside has no address; one that it had is given back."""
    if old is not None and old["spec"].get("type") != "ExternalName":
        for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
            if spec.get(name) == old["spec"].get(name):
                spec.pop(name, None)


def _keep_given(spec: JsonObject, before: JsonObject) -> None:
    """What the server gave once stays when an update leaves it out."""
    if before.get("type") in (None, "ExternalName"):
        return
    if not spec.get("clusterIP") and not spec.get("clusterIPs"):
        for name in ("clusterIP", "clusterIPs"):
            if name in before:
                spec[name] = before[name]
    for name in ("ipFamilies", "ipFamilyPolicy"):
        if name in before and not spec.get(name):
            spec[name] = before[name]
    if spec["type"] not in ("NodePort", "LoadBalancer"):
        if before["type"] != spec["type"]:
            for name in ("externalTrafficPolicy", "allocateLoadBalancerNodePorts", "healthCheckNodePort"):
                if spec.get(name) == before.get(name):
                    spec.pop(name, None)
            for port in spec.get("ports") or ():
                port.pop("nodePort", None)
        return
    have = {(port.get("port"), port.get("protocol")): port.get("nodePort") for port in before.get("ports") or ()}
    for port in spec.get("ports") or ():
        kept = have.get((port.get("port"), port.get("protocol")))
        if kept and not port.get("nodePort"):
            port["nodePort"] = kept


def _ingress(obj: JsonObject) -> list[JsonObject]:
    return ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []


def causes(obj: JsonObject, old: JsonObject | None) -> list[Cause]:
    spec = obj["spec"]
    found: list[Cause] = []
    for index, given in enumerate(_ingress(obj)):
        if (address := given.get("ip")) and not _is_address(address):
            found.append(errors.invalid_value(f"status.loadBalancer.ingress[{index}].ip", address, _NO_ADDRESS))
    kind = spec["type"]
    if kind not in _TYPES:
        found.append(errors.not_supported("spec.type", kind, _TYPES))
    if not spec.get("ports") and kind != "ExternalName" and spec.get("clusterIP") != "None":
        found.append(errors.required("spec.ports"))
    if kind == "ExternalName":
        found += _external_name_causes(spec)
    found += _port_causes(spec)
    for value in (spec.get("selector") or {}).values():
        found += [
            errors.Cause("spec.selector", cause.reason, cause.text) for cause in meta.label_value_causes(value)
        ]
    if spec["sessionAffinity"] not in _AFFINITIES:
        found.append(errors.not_supported("spec.sessionAffinity", spec["sessionAffinity"], _AFFINITIES))
    return found + _address_causes(spec, old)


def _external_name_causes(spec: JsonObject) -> list[Cause]:
    name = spec.get("externalName") or ""
    if not name:
        return [errors.required("spec.externalName")]
    return meta.subdomain_causes(name.removesuffix("."), "spec.externalName")


def _address_causes(spec: JsonObject, old: JsonObject | None) -> list[Cause]:
    listed = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    if spec["type"] == "ExternalName":
        if any(listed):
            return [errors.forbidden_field("spec.clusterIPs", "may not be set for ExternalName services")]
        return []
    before = ((old or {}).get("spec") or {}).get("clusterIPs") or []
    if before and (old or {})["spec"].get("type") != "ExternalName" and listed[:1] != before[:1]:
        return [errors.invalid_value("spec.clusterIPs[0]", listed, "may not change once set")]
    for index, address in enumerate(listed):
        if address == "None":
            continue
        if not _is_address(address):
            return [errors.invalid_value(f"spec.clusterIPs[{index}]", address, _NO_ADDRESS)]
    return []


_NO_ADDRESS: Final = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _port_causes(spec: JsonObject) -> list[Cause]:
    found: list[Cause] = []
    ports = spec.get("ports") or ()
    names: set[str] = set()
    seen: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        name = port.get("name") or ""
        if not name and len(ports) > 1:
            found.append(errors.required(f"{path}.name"))
        elif name and not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
            found.append(errors.invalid_value(f"{path}.name", name, identifiers.LABEL_TEXT))
        elif name in names:
            found.append(errors.duplicate_value(f"{path}.name", name))
        names.add(name)
        found += _number_causes(port.get("port"), f"{path}.port")
        if port["protocol"] not in _PROTOCOLS:
            found.append(errors.not_supported(f"{path}.protocol", port["protocol"], _PROTOCOLS))
        found += _target_causes(port.get("targetPort"), f"{path}.targetPort")
        found += _node_port_causes(spec, port, f"{path}.nodePort")
        key = (port.get("protocol"), port.get("port"))
        if key in seen:
            shown = {
                "Name": "",
                "Protocol": port.get("protocol"),
                "AppProtocol": None,
                "Port": port.get("port"),
                "TargetPort": 0,
                "NodePort": 0,
            }
            found.append(errors.duplicate_value(path, shown))
        seen.add(key)
    return found


def _number_causes(number: object, path: str) -> list[Cause]:
    if isinstance(number, int) and 1 <= number <= 65535:
        return []
    return [errors.invalid_value(path, number if number is not None else 0, _PORT_RANGE)]


def _target_causes(target: object, path: str) -> list[Cause]:
    if not isinstance(target, str):
        return _number_causes(target, path)
    found: list[Cause] = []
    if len(target) > 15:
        found.append(errors.invalid_value(path, target, "must be no more than 15 characters"))
    if not re.fullmatch(r"[-a-z0-9]*", target):
        detail = "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
        found.append(errors.invalid_value(path, target, detail))
    if not re.search(r"[a-z]", target):
        found.append(errors.invalid_value(path, target, "must contain at least one letter (a-z)"))
    if "--" in target:
        found.append(errors.invalid_value(path, target, "must not contain consecutive hyphens"))
    if target.startswith("-") or target.endswith("-"):
        found.append(errors.invalid_value(path, target, "must not begin or end with a hyphen"))
    return found


def _node_port_causes(spec: JsonObject, port: JsonObject, path: str) -> list[Cause]:
    number = port.get("nodePort")
    if not number:
        return []
    if spec["type"] not in ("NodePort", "LoadBalancer"):
        return [errors.forbidden_field(path, f"may not be used when `type` is '{spec['type']}'")]
    if number not in NODE_PORTS:
        detail = (
            "provided port is not in the valid range. The range of valid ports is "
            f"{NODE_PORTS.start}-{NODE_PORTS.stop - 1}"
        )
        return [errors.invalid_value(path, number, detail)]
    return []


class Addresses:
    """Which addresses and node ports are taken: by stored Services, and by those that are being written."""

    def __init__(self, state: State) -> None:
        self._addresses: set[str] = set()
        self._ports: set[int] = set()
        for entry in state.select(STORAGE):
            self._take(entry.obj)
        state.listen(self._observe)

    def _take(self, obj: JsonObject) -> None:
        addresses, ports = _given(obj)
        self._addresses |= addresses
        self._ports |= ports

    def _observe(self, event: Event) -> None:
        if event.entry.key.storage != STORAGE:
            return
        if event.previous is not None:
            addresses, ports = _given(event.previous.obj)
            self._addresses -= addresses
            self._ports -= ports
        if event.type != DELETED:
            self._take(event.entry.obj)

    def give(self, obj: JsonObject, *, keep: bool) -> list[Cause]:
        """Fill in what a valid Service is to be given, in place; `keep` False = for a dry run."""
        spec = obj["spec"]
        if spec["type"] == "ExternalName":
            return []
        found = self._give_address(spec, own=set(spec.get("clusterIPs") or ()))
        if spec["type"] == "NodePort" or (
            spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False
        ):
            for port in spec.get("ports") or ():
                if not port.get("nodePort"):
                    port["nodePort"] = self._free_port()
                    self._ports.add(port["nodePort"])
        addresses, ports = _given(obj)
        if keep and not found:
            self._addresses |= addresses
            self._ports |= ports
        elif not keep:
            self._ports -= {port for port in ports if port in self._ports}
        return found

    def _give_address(self, spec: JsonObject, *, own: set[str]) -> list[Cause]:
        wanted = spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or ()), "")
        if wanted == "None":
            headless_without_pods = not spec.get("selector")
            families = ["IPv4", "IPv6"] if headless_without_pods else ["IPv4"]
            spec.setdefault("ipFamilyPolicy", "RequireDualStack" if headless_without_pods else "SingleStack")
            spec.setdefault("ipFamilies", families)
        else:
            spec.setdefault("ipFamilyPolicy", "SingleStack")
            spec.setdefault("ipFamilies", ["IPv4"])
            fresh = wanted and wanted not in own
            if fresh and ipaddress.ip_address(wanted) not in NETWORK:
                detail = (
                    f"failed to allocate IP {wanted}: the provided IP ({wanted}) is not in the valid range. The "
                    f"range of valid IPs is {NETWORK}"
                )
                return [errors.invalid_value("spec.clusterIPs", [wanted], detail)]
            if fresh and wanted in self._addresses:
                detail = f"failed to allocate IP {wanted}: provided IP is already allocated"
                return [errors.invalid_value("spec.clusterIPs", [wanted], detail)]
            wanted = wanted or self._free_address()
        spec["clusterIP"] = wanted
        spec["clusterIPs"] = [wanted]
        return []

    def _free_address(self) -> str:
        for _ in range(_ATTEMPTS):
            number = random.randrange(16, NETWORK.num_addresses - 1)  # noqa: S311
            address = str(NETWORK[number])
            if address not in self._addresses:
                return address
        raise errors.internal("failed to allocate a serviceIP: range is full")

    def _free_port(self) -> int:
        free = [number for number in NODE_PORTS if number not in self._ports]
        if not free:
            raise errors.internal("failed to allocate a nodePort: range is full")
        return random.choice(free)  # noqa: S311


def _given(obj: JsonObject) -> tuple[set[str], set[int]]:
    spec = obj.get("spec") or {}
    addresses = {address for address in spec.get("clusterIPs") or () if address != "None"}
    ports = {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}
    return addresses, ports
