"""What upstream's tests find installed in a cluster: their namespaces with contents, and the gateway's Service."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import yaml

from serving.api.keys import SYSTEM_NAMESPACE
from serving.api.meta import JsonObject
from serving.api.resources import CONFIG_MAPS, NAMESPACES, SECRETS, SERVICES, Resource
from serving.kube.client import KubeClient
from serving.kube.connection import from_kubeconfig
from serving.kube.errors import AlreadyExists

GATEWAY_SERVICE: Final = "conformance-gateway"
SETTINGS: Final = {"config-network": {"autocreate-cluster-domain-claims": "true"}}
_KINDS: Final = {
    "Namespace": NAMESPACES,
    "ConfigMap": CONFIG_MAPS,
    "Secret": SECRETS,
    "Service": SERVICES,
    "ResourceQuota": Resource("", "v1", "resourcequotas", "ResourceQuota"),
}
_FILES: Final = ("cluster-resources.yaml", "test-resources.yaml", "resource-quota/resource-quota.yaml")


def objects(config: Path, *, gateway_port: int) -> list[JsonObject]:
    """`config`: upstream's directory test/config. `gateway_port`: where the gateway listens on loopback."""
    found = [
        document
        for name in _FILES
        for document in yaml.safe_load_all((config / name).read_text())
        if document is not None
    ]
    return [*found, _gateway(gateway_port)]


def _gateway(port: int) -> JsonObject:
    """The tests dial the node port that this Service has for port 80."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": GATEWAY_SERVICE, "namespace": SYSTEM_NAMESPACE},
        "spec": {"type": "NodePort", "ports": [{"name": "http2", "port": 80, "nodePort": port}]},
    }


async def install(kubeconfig: Path, wanted: list[JsonObject]) -> None:
    """Create what is not there, and set what upstream's own runs set. Raises KubeError."""
    async with KubeClient(await from_kubeconfig(kubeconfig)) as client:
        for body in wanted:
            try:
                await client.create(_KINDS[body["kind"]], body)
            except AlreadyExists:
                continue
        for name, data in SETTINGS.items():
            await client.patch(CONFIG_MAPS, name, {"data": data}, SYSTEM_NAMESPACE)


def install_now(kubeconfig: Path, wanted: list[JsonObject]) -> None:
    asyncio.run(install(kubeconfig, wanted))
