"""Where pods of one machine find the gateway and the API server: said by its node agent on the Node."""

from __future__ import annotations

from typing import Final

import msgspec

from serving.api.meta import Model, ObjectMeta

POD_NETWORK: Final = "nodeless.dev/pod-network"
"""Annotation of a Node: a `PodNetworkFacts` as JSON. Absent where pods have no network of their own."""

HTTP_PORT: Final = 80
HTTPS_PORT: Final = 443


class PodNetworkFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`identity` names the network namespace in which the addresses are, `namespace` is a path that leads to it
    for as long as the node agent lives. Both are empty when it is the gateway's own."""

    gateway: str
    """IPv4 address where pods expect cluster-local hosts, port 80."""
    kubernetes: str
    """IPv4 address where pods expect the API server, port 443."""
    identity: str = ""
    namespace: str = ""


class NodeFacts(Model, frozen=True, kw_only=True):
    """A Node, as far as a gateway looks at it."""

    metadata: ObjectMeta = ObjectMeta()

    @property
    def pod_network(self) -> PodNetworkFacts | None:
        return parse(self.metadata.annotations.get(POD_NETWORK))


def parse(annotation: str | None) -> PodNetworkFacts | None:
    """None when there is none, or nothing that can be read."""
    if not annotation:
        return None
    try:
        return msgspec.json.decode(annotation, type=PodNetworkFacts)
    except msgspec.DecodeError:
        return None
