"""The bearer token between gateways and the controller, kept in a Secret: whoever needs it first makes it."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets

from serving.api.keys import SYSTEM_NAMESPACE
from serving.api.meta import JsonObject
from serving.api.resources import SECRETS
from serving.kube.client import KubeClient
from serving.kube.errors import AlreadyExists, Conflict, KubeError, NotFound

log = logging.getLogger(__name__)

SECRET_NAME = "nodeless-reports"  # noqa: S105 - the object's name
_FIELD = "token"
_RETRY_SECONDS = 1.0


async def shared_token(client: KubeClient) -> str:
    """The token; made and stored when there is none. Waits for an API server that cannot be reached.

    Raises KubeError when the Secret may not be read or written.
    """
    while True:
        try:
            found = await _read(client)
        except (Conflict, AlreadyExists, NotFound):
            continue  # somebody else was faster
        except KubeError as error:
            if not error.transient:
                raise
            log.warning("Secret %s/%s: %s", SYSTEM_NAMESPACE, SECRET_NAME, error)
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return found


async def _read(client: KubeClient) -> str:
    fresh = secrets.token_urlsafe(32)
    data = {_FIELD: base64.b64encode(fresh.encode()).decode()}
    try:
        secret = await client.get(SECRETS, SECRET_NAME, SYSTEM_NAMESPACE)
    except NotFound:
        metadata = {"name": SECRET_NAME, "namespace": SYSTEM_NAMESPACE}
        body: JsonObject = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}
        await client.create(SECRETS, body)
        return fresh
    stored = (secret.get("data") or {}).get(_FIELD)
    if stored:
        return base64.b64decode(stored).decode()
    precondition = {"resourceVersion": secret["metadata"]["resourceVersion"]}
    await client.patch(SECRETS, SECRET_NAME, {"metadata": precondition, "data": data}, SYSTEM_NAMESPACE)
    return fresh
