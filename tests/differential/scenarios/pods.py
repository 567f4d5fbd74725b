"""Pods: what is filled in, what is refused, binding, status, eviction."""

from __future__ import annotations

from typing import Any, Final

from tests.differential.model import STRATEGIC_PATCH, Scenario, Step, get, patch, post
from tests.differential.scenarios.bodies import PODS, pod

_FULL: Final = {
    "name": "c",
    "image": "example.dev/app:latest",
    "command": ["run"],
    "env": [
        {"name": "A", "value": "1"},
        {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "C"},
    ],
    "envFrom": [{"configMapRef": {"name": "x"}}],
    "ports": [{"containerPort": 80}, {"name": "u", "containerPort": 81, "protocol": "UDP"}],
    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": 0.5}},
    "readinessProbe": {"httpGet": {"port": 80}},
    "livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 5},
    "startupProbe": {"exec": {"command": ["true"]}},
    "lifecycle": {"preStop": {"httpGet": {"port": 80, "path": "/x"}}},
    "volumeMounts": [{"name": "e", "mountPath": "/e"}, {"name": "s", "mountPath": "/s", "readOnly": True}],
    "securityContext": {"runAsUser": 1, "capabilities": {"drop": ["ALL"]}},
}
_VOLUMES: Final = [
    {"name": "e", "emptyDir": {"sizeLimit": "1Gi"}},
    {"name": "s", "secret": {"secretName": "x"}},
    {"name": "c", "configMap": {"name": "x", "items": [{"key": "a", "path": "b"}]}},
    {
        "name": "p",
        "projected": {
            "sources": [
                {"serviceAccountToken": {"path": "t"}},
                {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            ]
        },
    },
    {"name": "h", "hostPath": {"path": "/x"}},
]


def _bad(id: str, container: Any = None, **spec: Any) -> Step:
    body = pod("x", **spec)
    if container is not None:
        body["spec"]["containers"] = [{"name": "c", "image": "i", **container}]
    return post(id, PODS, body)


def _mount(**mount: Any) -> Any:
    return {"volumeMounts": [mount]}


SCENARIOS: Final = (
    Scenario(
        name="pods",
        steps=(
            post("smallest", PODS, pod("a")),
            post(
                "full",
                PODS,
                pod(
                    "b",
                    containers=[_FULL],
                    volumes=_VOLUMES,
                    initContainers=[{"name": "i", "image": "i:1"}],
                    terminationGracePeriodSeconds=5,
                    serviceAccountName="default",
                    securityContext={"runAsNonRoot": True},
                    tolerations=[{"key": "k", "operator": "Exists"}],
                    nodeSelector={"a": "b"},
                    enableServiceLinks=False,
                    automountServiceAccountToken=False,
                ),
            ),
            post(
                "host network",
                PODS,
                pod(
                    "h",
                    hostNetwork=True,
                    containers=[{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}],
                ),
            ),
            post(
                "best of resources",
                PODS,
                pod(
                    "r",
                    containers=[
                        {"name": "c", "image": "i", "resources": {"limits": {"cpu": "100m", "memory": "1000Ki"}}}
                    ],
                ),
            ),
            post("absent account", PODS, pod("x", serviceAccountName="none")),
            post("absent priority class", PODS, pod("x", priorityClassName="none")),
            get("get", f"{PODS}/a", save="a"),
            post(
                "bind", f"{PODS}/a/binding", {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}}
            ),
            get("bound", f"{PODS}/a", view=lambda body: (body["spec"].get("nodeName"), body["status"])),
            post(
                "bind again",
                f"{PODS}/a/binding",
                {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n2"}},
            ),
            post("bind to nothing", f"{PODS}/b/binding", {"metadata": {"name": "b"}, "target": {"kind": "Node"}}),
            post(
                "bind to a kind",
                f"{PODS}/b/binding",
                {"metadata": {"name": "b"}, "target": {"kind": "Bogus", "name": "n"}},
            ),
            patch(
                "image",
                f"{PODS}/a",
                {"spec": {"containers": [{"name": "c", "image": "other:2"}]}},
                STRATEGIC_PATCH,
                view=lambda body: body["spec"]["containers"][0]["image"] if "spec" in body else body,
            ),
            patch(
                "deadline",
                f"{PODS}/a",
                {"spec": {"activeDeadlineSeconds": 5}},
                view=lambda body: body["spec"].get("activeDeadlineSeconds") if "spec" in body else body,
            ),
            patch(
                "command cannot change",
                f"{PODS}/a",
                {"spec": {"containers": [{"name": "c", "command": ["x"]}]}},
                STRATEGIC_PATCH,
                view=lambda body: body.get("message", "")[:120],
            ),
            patch(
                "containers cannot be added",
                f"{PODS}/a",
                {"spec": {"containers": [{"name": "d", "image": "i"}]}},
                STRATEGIC_PATCH,
            ),
            patch(
                "node cannot change",
                f"{PODS}/a",
                {"spec": {"nodeName": "n3"}},
                view=lambda body: body.get("message", "")[:120],
            ),
            patch(
                "tolerations may be added",
                f"{PODS}/b",
                {"spec": {"tolerations": [{"key": "l", "operator": "Exists"}]}},
                STRATEGIC_PATCH,
                view=lambda body: body.get("message", "")[:120] or len(body["spec"]["tolerations"]),
            ),
            patch("labels", f"{PODS}/a", {"metadata": {"labels": {"x": "y"}}}, view=lambda body: body["metadata"]),
            patch(
                "status",
                f"{PODS}/a/status",
                {
                    "status": {
                        "phase": "Running",
                        "podIP": "10.1.2.3",
                        "podIPs": [{"ip": "10.1.2.3"}],
                        "startTime": "2001-01-01T00:00:00Z",
                        "conditions": [
                            {"type": "Ready", "status": "True", "lastTransitionTime": "2001-01-01T00:00:00Z"}
                        ],
                    }
                },
                view=lambda body: body.get("status"),
            ),
            patch(
                "status with spec and labels",
                f"{PODS}/a/status",
                {"metadata": {"labels": {"s": "t"}}, "spec": {"nodeName": "n9"}, "status": {"message": "m"}},
                view=lambda body: (
                    (body["metadata"]["labels"], body["spec"]["nodeName"], body["status"]["message"])
                    if "spec" in body
                    else body
                ),
            ),
            patch(
                "status through the object",
                f"{PODS}/a",
                {"status": {"phase": "Failed"}},
                view=lambda body: body["status"]["phase"],
            ),
            patch("status of a wrong type", f"{PODS}/a/status", {"status": {"phase": 1}}),
            get("status is read", f"{PODS}/a/status", view=lambda body: body["kind"]),
            post(
                "evict",
                f"{PODS}/h/eviction",
                {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "h"}},
            ),
            post(
                "evict what is absent",
                f"{PODS}/none/eviction",
                {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "none"}},
            ),
            post(
                "evict another",
                f"{PODS}/r/eviction",
                {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "other"}},
            ),
        ),
    ),
    Scenario(
        name="pods refused",
        steps=(
            _bad("no containers", containers=[]),
            _bad("no name", containers=[{"image": "i"}]),
            _bad("no image", containers=[{"name": "c"}]),
            _bad("image with spaces", {"image": " i "}),
            _bad("bad name", containers=[{"name": "A", "image": "i"}]),
            _bad("same name", containers=[{"name": "c", "image": "i"}, {"name": "c", "image": "j"}]),
            _bad("init of the same name", initContainers=[{"name": "c", "image": "i"}]),
            _bad("pull policy", {"imagePullPolicy": "Bogus"}),
            _bad("restart policy", restartPolicy="Bogus"),
            _bad("dns policy", dnsPolicy="Bogus"),
            _bad("negative grace", terminationGracePeriodSeconds=-1),
            _bad("deadline", activeDeadlineSeconds=0),
            _bad("env without a name", {"env": [{"value": "x"}]}),
            _bad("env name", {"env": [{"name": "a=b", "value": "x"}]}),
            _bad(
                "env with both",
                {"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
            ),
            _bad("env of nothing", {"env": [{"name": "A", "valueFrom": {}}]}),
            _bad(
                "env of a field", {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.bogus"}}}]}
            ),
            _bad("port 0", {"ports": [{"containerPort": 0}]}),
            _bad("port is too high", {"ports": [{"containerPort": 65536}]}),
            _bad("port name", {"ports": [{"containerPort": 80, "name": "TOO_LONG_OR_BAD"}]}),
            _bad(
                "port name twice",
                {"ports": [{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}]},
            ),
            _bad("protocol", {"ports": [{"containerPort": 80, "protocol": "ICMP"}]}),
            _bad("probe without a handler", {"readinessProbe": {}}),
            _bad(
                "probe with two handlers", {"readinessProbe": {"httpGet": {"port": 80}, "tcpSocket": {"port": 80}}}
            ),
            _bad("probe period", {"readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": -1}}),
            _bad("probe port", {"readinessProbe": {"tcpSocket": {"port": 0}}}),
            _bad(
                "liveness success threshold", {"livenessProbe": {"tcpSocket": {"port": 80}, "successThreshold": 2}}
            ),
            _bad("quantity", {"resources": {"limits": {"cpu": "lots"}}}),
            _bad("negative quantity", {"resources": {"limits": {"cpu": "-1"}}}),
            _bad("request above the limit", {"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}),
            _bad("resource name", {"resources": {"limits": {"a b": "1"}}}),
            _bad("mount of nothing", _mount(name="v", mountPath="/v")),
            _bad("mount without a path", _mount(name="v"), volumes=[{"name": "v", "emptyDir": {}}]),
            _bad(
                "mount twice",
                {"volumeMounts": [{"name": "v", "mountPath": "/v"}] * 2},
                volumes=[{"name": "v", "emptyDir": {}}],
            ),
            _bad(
                "sub path",
                _mount(name="v", mountPath="/v", subPath="../x"),
                volumes=[{"name": "v", "emptyDir": {}}],
            ),
            _bad("volume without a name", volumes=[{"emptyDir": {}}]),
            _bad("volume twice", volumes=[{"name": "v", "emptyDir": {}}] * 2),
            _bad("volume of two kinds", volumes=[{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]),
            _bad("secret without a name", volumes=[{"name": "v", "secret": {}}]),
            _bad("node selector", nodeSelector={"a b": "c"}),
            _bad("toleration", tolerations=[{"operator": "Bogus"}]),
            _bad("node name", nodeName="A_B"),
            _bad("host alias", hostAliases=[{"ip": "x", "hostnames": ["h"]}]),
            _bad("host name", hostname="A_B"),
            _bad("run as user", {"securityContext": {"runAsUser": -1}}),
            _bad("pod run as user", securityContext={"runAsUser": -1}),
            _bad("scheduling gate", schedulingGates=[{"name": "a"}], nodeName="n1"),
            _bad("account name", serviceAccountName="A_B"),
            post("no spec", PODS, {"metadata": {"name": "x"}}),
            post("label of the pod", PODS, {**pod("x"), "metadata": {"name": "x", "labels": {"a": "b c"}}}),
            post("name of the pod", PODS, pod("A_B")),
        ),
    ),
)
