"""containerConcurrency, timeouts, and clients that leave."""

from __future__ import annotations

import asyncio

from serving.api.meta import JsonObject
from tests.e2e.cluster import Cluster
from tests.e2e.http import Answer, Gateway
from tests.e2e.manifests import AUTOSCALING, service

_STRICT = """
import http.server, socketserver, threading, time
running, most, lock = 0, 0, threading.Lock()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        global running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1
        body = str(most).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 1024
Server(("", 8080), Handler).serve_forever()
"""


async def test_one_request_per_container(cluster: Cluster, gateway: Gateway, name: str, python_image: str) -> None:
    """The server counts how many requests it ever had at once."""
    body = service(
        name,
        image=python_image,
        container={"command": ["/usr/bin/python3", "-c", _STRICT]},
        spec={"containerConcurrency": 1},
        annotations={f"{AUTOSCALING}/max-scale": "3"},
    )
    await cluster.deploy(body)
    answers = await asyncio.gather(*(gateway.get(name) for _ in range(120)))
    assert {answer.status for answer in answers} == {200}
    assert {answer.text for answer in answers} == {"1"}
    assert len(await cluster.list("pod", f"serving.knative.dev/service={name}")) > 1


async def test_time_out_of_a_held_request(cluster: Cluster, gateway: Gateway, name: str) -> None:
    """Its pods cannot start any more, since what they are configured from is gone."""
    greeting = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"greeting": "you"},
    }
    await cluster.apply(greeting)
    source = {"configMapKeyRef": {"name": name, "key": "greeting"}}
    env = {"env": [{"name": "TARGET", "valueFrom": source}]}
    await cluster.deploy(service(name, container=env, spec={"timeoutSeconds": 3}))
    await cluster.at_zero(name)
    await cluster.delete("configmap", name)
    answers = await asyncio.gather(*(gateway.get(name) for _ in range(5)))
    assert {(answer.status, answer.text.strip()) for answer in answers} == {(504, "activator request timeout")}
    assert all(2.5 <= answer.seconds <= 4 for answer in answers)
    await cluster.apply(greeting)
    await cluster.until(
        "pod",
        lambda items: any(item["status"].get("phase") == "Running" for item in items),
        selector=f"serving.knative.dev/service={name}",
        seconds=60,
        what="a pod that starts once its configuration is back",
    )
    assert (await gateway.get(name)).text == "Hello you!\n"
    await cluster.delete("configmap", name)


async def test_time_out_of_a_running_request(cluster: Cluster, gateway: Gateway, name: str) -> None:
    await cluster.deploy(service(name, spec={"timeoutSeconds": 2}))
    answer = await gateway.get(name, "/sleep?ms=10000")
    assert answer.status == 504
    assert 1.5 <= answer.seconds <= 4


async def test_a_client_that_leaves_while_held(cluster: Cluster, gateway: Gateway, name: str) -> None:
    await cluster.deploy(service(name))
    await cluster.at_zero(name)
    leaving = [asyncio.create_task(gateway.get(name, "/sleep?ms=1")) for _ in range(20)]
    staying = asyncio.create_task(gateway.get(name))
    await asyncio.sleep(0.02)
    for task in leaving:
        task.cancel()
    results = await asyncio.gather(*leaving, return_exceptions=True)
    assert all(not isinstance(result, Answer) or result.status == 200 for result in results)
    assert (await staying).status == 200
    await cluster.at_zero(name)


async def test_a_crash_while_serving(cluster: Cluster, gateway: Gateway, name: str) -> None:
    """The only container ends; from when that is known, requests wait for its successor."""
    await cluster.deploy(service(name))
    await gateway.get(name, "/exit?code=1")

    def ended(items: list[JsonObject]) -> bool:
        states = [state for item in items for state in item["status"].get("containerStatuses", ())]
        return any("terminated" in state["state"] or state["restartCount"] for state in states)

    selector = f"serving.knative.dev/service={name}"
    await cluster.until("pod", ended, selector=selector, what=f"the container of {name} has ended")
    answer = await gateway.get(name)
    assert (answer.status, answer.text) == (200, "Hello World!\n")
