"""Namespaces of a test on the real control plane: their objects, and requests to their Services."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Final

from tests.cluster.components import Components
from tests.cluster.install import kubectl

DOMAIN: Final = "example.com"
IMAGE: Final = "dev.local/hello-static:latest"
KINDS: Final = "ksvc,configuration,route,revision,pod,service"


def poll(condition: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """What `condition` returns once it is true. Raises AssertionError."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)
    return found


class Namespace:
    """Services of one test in one namespace, and requests to them."""

    def __init__(self, components: Components, name: str) -> None:
        self.components = components
        self.name = name

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return kubectl(self.components.control_plane, "-n", self.name, *arguments, stdin=stdin)

    def get(self, kind: str, name: str = "", selector: str = "") -> Any:
        more = [part for part in (name, f"-l={selector}" if selector else "") if part]
        found = json.loads(self.kubectl("get", kind, *more, "-o", "json"))
        return found if name else found["items"]

    def apply(self, body: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def ready(self, name: str) -> None:
        try:
            self.kubectl("wait", f"ksvc/{name}", "--for=condition=Ready", "--timeout=120s")
        except AssertionError as error:
            state = self.kubectl("get", f"{KINDS},events", "-o", "wide")
            raise AssertionError(f"{error}\n{state}\n{self.components.log_tail()}") from None

    def ask(self, host: str, *, seconds: float = 30) -> tuple[int, str]:
        request = urllib.request.Request(self.components.url, headers={"Host": f"{host}.{self.name}.{DOMAIN}"})
        try:
            with urllib.request.urlopen(request, timeout=seconds) as response:
                return response.status, response.read().decode().strip()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode().strip()

    def until(self, condition: Callable[[], Any], what: str, *, seconds: float = 120) -> Any:
        try:
            return poll(condition, seconds=seconds, what=what)
        except AssertionError as error:
            state = self.kubectl("get", f"{KINDS},events", "-o", "wide")
            raise AssertionError(f"{error}\n{state}\n{self.components.log_tail()}") from None


def service(name: str, text: str, *, revision: str = "") -> dict[str, Any]:
    """A Service whose Revisions have a window of 6 s, the shortest."""
    container = {"image": IMAGE, "env": [{"name": "TARGET", "value": text}]}
    metadata: dict[str, Any] = {"annotations": {"autoscaling.knative.dev/window": "6s"}}
    if revision:
        metadata["name"] = revision
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"template": {"metadata": metadata, "spec": {"containers": [container]}}},
    }


def make(components: Components, name: str) -> Namespace:
    namespace = Namespace(components, name)
    kubectl(components.control_plane, "create", "namespace", name)
    return namespace
