"""Tokens of service accounts for pods, by the TokenRequest API. When to renew one is decided as kubelets do."""

from __future__ import annotations

from typing import Final

import msgspec

from serving.api.meta import JsonObject
from serving.api.pod import Pod
from serving.api.resources import SERVICE_ACCOUNTS
from serving.api.timestamps import parse
from serving.kube.client import KubeClient
from serving.local.node.volumes import TokenWanted

_OLDEST_SECONDS: Final = 24 * 3600.0
_RENEW_AT: Final = 0.8
"""Share of a token's life after which a new one is asked for."""


class Token(msgspec.Struct, frozen=True):
    """Times are Unix seconds."""

    value: str
    renew_at: float
    expires_at: float


async def request_token(client: KubeClient, pod: Pod, wanted: TokenWanted, *, now: float) -> Token:
    """A token bound to the pod: it is worth nothing once the pod is gone. Raises KubeError."""
    meta = pod.metadata
    account = pod.spec.service_account_name or "default"
    body: JsonObject = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": [wanted.audience] if wanted.audience else [],
            "expirationSeconds": wanted.seconds,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid},
        },
    }
    made = await client.create_subresource(SERVICE_ACCOUNTS, account, "token", body, meta.namespace)
    status = made["status"]
    expires = parse(status["expirationTimestamp"])
    life = max(expires - now, 1.0)
    return Token(status["token"], now + min(life * _RENEW_AT, _OLDEST_SECONDS), expires)
