"""How long the webhook takes for one review, as the API server calls it: a kept connection, one after the other.

    python -m loadtests.webhook [--reviews 500]

Reviews of a Service that is created, to the defaulting and the validating webhook of a running stack, at the
address that the stack registered. Measured from the first byte sent to the last received.
"""

from __future__ import annotations

import base64
import json
import ssl
import time
import uuid
from typing import Any

import aiohttp
import jsonpatch

from loadtests.common import CONSOLE, Stack, parser_of, stack, times_row, times_table
from serving.api.resources import Resource
from serving.cli.connect import run_until_signal

_GOAL = "≤ 15 p99"
_KINDS = {
    "defaulting": Resource(
        "admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration"
    ),
    "validation": Resource(
        "admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration"
    ),
}
SERVICE: dict[str, Any] = {
    "apiVersion": "serving.knative.dev/v1",
    "kind": "Service",
    "metadata": {"name": "hello", "namespace": "default"},
    "spec": {
        "template": {
            "metadata": {"annotations": {"autoscaling.knative.dev/target": "50"}},
            "spec": {
                "containers": [
                    {
                        "image": "dev.local/hello-static:latest",
                        "env": [{"name": f"NAME_{number}", "value": "value"} for number in range(10)],
                        "resources": {"limits": {"cpu": "1", "memory": "256Mi"}},
                        "readinessProbe": {"httpGet": {"path": "/"}},
                    }
                ]
            },
        },
    },
}


async def client_config(up: Stack, kind: Resource) -> dict[str, Any]:
    """Where the webhook for Services is, as registered."""
    for configuration in (await up.client.list(kind))["items"]:
        for webhook in configuration["webhooks"]:
            if any("services" in rule["resources"] for rule in webhook["rules"]):
                return dict(webhook["clientConfig"])
    raise SystemExit(f"no webhook for Services in {kind.plural}")


def review(service: dict[str, Any]) -> dict[str, Any]:
    gvk = {"group": "serving.knative.dev", "version": "v1", "kind": "Service"}
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": str(uuid.uuid4()),
            "kind": gvk,
            "resource": {"group": gvk["group"], "version": "v1", "resource": "services"},
            "namespace": "default",
            "name": "hello",
            "operation": "CREATE",
            "userInfo": {"username": "somebody"},
            "object": service,
        },
    }


async def ask(config: dict[str, Any], service: dict[str, Any], count: int) -> tuple[list[float], dict[str, Any]]:
    """Seconds of each review, and the Service as the last answer would have it."""
    bundle = config.get("caBundle")
    context = ssl.create_default_context(cadata=base64.b64decode(bundle).decode()) if bundle else False
    took: list[float] = []
    patch: str | None = None
    async with aiohttp.ClientSession() as session:
        for _ in range(count):
            body = review(service)
            began = time.perf_counter()
            async with session.post(config["url"], json=body, ssl=context) as response:
                answer = await response.json()
            took.append(time.perf_counter() - began)
            if not answer["response"]["allowed"]:
                raise SystemExit(answer["response"]["status"]["message"])
            patch = answer["response"].get("patch")
    operations = json.loads(base64.b64decode(patch)) if patch else []
    return took, jsonpatch.apply_patch(service, operations)


async def bench(count: int) -> None:
    async with stack() as up:
        table = times_table("One admission review")
        service = SERVICE
        for name, kind in _KINDS.items():  # what the first made of it goes to the second
            config = await client_config(up, kind)
            await ask(config, service, 50)  # not counted
            took, service = await ask(config, service, count)
            times_row(table, name, took, _GOAL)
        CONSOLE.print(table)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--reviews", type=int, default=500)
    run_until_signal(bench(parser.parse_args().reviews))


if __name__ == "__main__":
    main()
