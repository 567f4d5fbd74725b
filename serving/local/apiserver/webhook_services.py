"""Where a webhook answers that is named by a Service: the address and port of one of its endpoints. Pure."""

from __future__ import annotations

import random

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver.state import Key, State

_SLICES = "endpointslices.discovery.k8s.io"
_SERVICE_NAME = "kubernetes.io/service-name"


class ServiceTarget(msgspec.Struct, frozen=True, kw_only=True):
    """`clientConfig.service` of a webhook."""

    namespace: str
    name: str
    path: str = ""
    port: int = 443

    @property
    def host(self) -> str:
        """The name that its certificate is for."""
        return f"{self.name}.{self.namespace}.svc"

    @property
    def url(self) -> str:
        """As messages name it."""
        return f"https://{self.host}:{self.port}{self.path}"


class Unreachable(Exception):
    """The Service is not there, or has no endpoint."""


def resolve(state: State, target: ServiceTarget) -> tuple[str, int]:
    """Raises Unreachable."""
    entry = state.get(Key("services", target.namespace, target.name))
    if entry is None:
        raise Unreachable(f'service "{target.name}" not found')
    spec = entry.obj.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName")), target.port
    port = next((each for each in spec.get("ports") or () if each.get("port") == target.port), None)
    if port is None:
        raise Unreachable(f'no service port {target.port} found for service "{target.name}"')
    found = [
        (address, number)
        for slice_ in _slices(state, target)
        if (number := _number(slice_, port)) is not None
        for endpoint in slice_.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint.get("addresses") or ()
    ]
    if not found:
        raise Unreachable(f'no endpoints available for service "{target.name}"')
    return random.choice(found)  # noqa: S311


def _slices(state: State, target: ServiceTarget) -> list[JsonObject]:
    return [
        entry.obj
        for entry in state.select(_SLICES, target.namespace)
        if (entry.obj["metadata"].get("labels") or {}).get(_SERVICE_NAME) == target.name
    ]


def _number(slice_: JsonObject, port: JsonObject) -> int | None:
    """The port of the slice's endpoints that stands for a port of the Service."""
    for each in slice_.get("ports") or ():
        if (each.get("name") or "") == (port.get("name") or ""):
            number = each.get("port")
            return int(number) if number else None
    return None
