"""Writes the webhook configurations into the API server: what an installer does on a cluster."""

from __future__ import annotations

from serving.api.meta import JsonObject
from serving.api.resources import MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS
from serving.kube.client import KubeClient
from serving.kube.errors import NotFound
from serving.webhook.configurations import webhook_configurations


async def register(client: KubeClient, *, url: str, ca_bundle: str | None = None) -> None:
    """Create the configurations, or point those that exist at `url`. Nothing is written when they are right."""
    for body in webhook_configurations(url, ca_bundle):
        resource = MUTATING_WEBHOOKS if body["kind"] == "MutatingWebhookConfiguration" else VALIDATING_WEBHOOKS
        name = body["metadata"]["name"]
        try:
            stored = await client.get(resource, name)
        except NotFound:
            # First, so that an account that may only change what an installer made is enough.
            await client.create(resource, body)
        else:
            if _clients(stored) != _clients(body):
                await client.patch(resource, name, {"webhooks": body["webhooks"]})


def _clients(body: JsonObject) -> list[tuple[str, JsonObject]]:
    return [(webhook["name"], webhook["clientConfig"]) for webhook in body["webhooks"]]
