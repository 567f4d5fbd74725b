"""Pods that kube-apiserver refuses, and why; one wrong part each."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

import pytest

from serving.api.meta import JsonObject
from serving.local.apiserver.pods import default_pod
from serving.local.apiserver.podvalidation.spec import pod_causes, spec_causes
from serving.local.apiserver.podvalidation.updates import update_causes

EMPTY: Final = {"name": "v", "emptyDir": {}}
TCP: Final = {"tcpSocket": {"port": 80}}
MOUNT: Final = {"name": "v", "mountPath": "/v"}
HALF: Final = {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}
OTHER_PORT: Final = {"name": "c", "image": "i", "ports": [{"containerPort": 1, "hostPort": 2}]}


def pod(container: Mapping[str, Any] | None = None, **spec: Any) -> JsonObject:
    made: JsonObject = {"metadata": {"name": "p"}, "spec": {"serviceAccountName": "default", **spec}}
    made["spec"].setdefault("containers", [{"name": "c", "image": "i", **(container or {})}])
    made = copy.deepcopy(made)
    default_pod(made)
    return made


def told(made: JsonObject) -> list[str]:
    return [cause.message for cause in pod_causes(made)]


FULL: Final = {
    "env": [
        {"name": "A", "value": "1"},
        {"name": "any thing!", "value": "1"},
        {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['example.com/x']"}}},
        {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
        {"name": "D", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ],
    "envFrom": [{"prefix": "P_", "configMapRef": {"name": "x"}}],
    "ports": [{"name": "h2c", "containerPort": 80}, {"name": "u", "containerPort": 80, "protocol": "UDP"}],
    "resources": {"limits": {"cpu": "1", "memory": "1Gi", "example.com/gpu": "1"}, "requests": {"cpu": 0.5}},
    "readinessProbe": {"httpGet": {"port": "h2c", "httpHeaders": [{"name": "X-A", "value": "b"}]}},
    "livenessProbe": {"grpc": {"port": 80}},
    "startupProbe": {"exec": {"command": ["true"]}},
    "lifecycle": {"preStop": {"sleep": {"seconds": 30}}},
    "volumeMounts": [{**MOUNT, "subPath": "a/..b"}],
    "securityContext": {"runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}},
}


def test_an_ordinary_pod() -> None:
    made = pod(
        FULL,
        volumes=[
            EMPTY,
            {"name": "s", "secret": {"secretName": "x", "items": [{"key": "a", "path": "b", "mode": 0o400}]}},
            {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            {
                "name": "d",
                "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]},
            },
        ],
        initContainers=[{"name": "i", "image": "i", "restartPolicy": "Always", "readinessProbe": TCP}],
        tolerations=[{"operator": "Exists"}],
        nodeSelector={"kubernetes.io/os": "linux"},
        dnsConfig={"nameservers": ["10.0.0.1"], "searches": ["_x.example.com.", "."]},
        dnsPolicy="None",
        hostAliases=[{"ip": "010.1.2.3", "hostnames": ["h"]}, {"ip": "::1"}],
    )
    assert told(made) == []
    assert made["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "500m"


C: Final = "spec.containers[0]"


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({"terminationMessagePolicy": "X"}, [".terminationMessagePolicy: Unsupported"]),
        ({"restartPolicy": "X"}, [".restartPolicy: Unsupported"]),
        ({"ports": [{"containerPort": 80, "hostPort": 70000}]}, [".ports[0].hostPort: Invalid value: 70000"]),
        ({"ports": [{"containerPort": 1, "hostPort": 1}] * 2}, ['.ports[1].hostPort: Duplicate value: "TCP//1"']),
        ({"ports": [{"containerPort": 1, "name": "-"}]}, [".ports[0].name: ", ".ports[0].name: must not begin"]),
        ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"key": "a b"}}}]}, [".name: ", ".key: "]),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]},
            ['.fieldPath: Unsupported value: "status.phase"'],
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x['a']"}}}]},
            ["field label does not support subscript"],
        ),
        (
            {"env": [{"name": "A", "valueFrom": HALF}]},
            ["only divisor's values 1m and 1 are"],
        ),
        ({"envFrom": [{}]}, [".envFrom: Invalid value"]),
        ({"envFrom": [{"secretRef": {}}]}, [".envFrom[0].secretRef.name: Required"]),
        ({"readinessProbe": {"httpGet": {"port": "80"}}}, [".httpGet.port: Invalid value: "]),
        ({"readinessProbe": {"httpGet": {"port": 80, "scheme": "ftp"}}}, [".httpGet.scheme: Unsupported"]),
        ({"readinessProbe": {**TCP, "terminationGracePeriodSeconds": 1}}, ["must not be set for readinessProbes"]),
        ({"startupProbe": {"exec": {}}}, [".startupProbe.exec.command: Required"]),
        ({"lifecycle": {"preStop": {}}}, [".lifecycle.preStop: Required value: must specify a handler type"]),
        ({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}, [".preStop.sleep: Invalid value: 31"]),
        ({"lifecycle": {"stopSignal": "SIGTERM"}}, [".lifecycle.stopSignal: Forbidden"]),
        (
            {"resources": {"limits": {"hugepages-2Mi": "2Mi"}}},
            [".resources: Forbidden: HugePages require cpu or memory"],
        ),
        (
            {"resources": {"limits": {"example.com/gpu": "2"}, "requests": {"example.com/gpu": "1"}}},
            ['Invalid value: "1": must be equal to example.com/gpu limit of 2'],
        ),
        ({"resources": {"requests": {"pods": "2"}}}, ["must be a standard resource for containers"]),
        ({"volumeMounts": [{**MOUNT, "subPath": "/x"}]}, ["must be a relative path"]),
        (
            {"volumeMounts": [{**MOUNT, "mountPropagation": "Bidirectional"}]},
            ["privileged"],
        ),
        (
            {"volumeMounts": [{**MOUNT, "recursiveReadOnly": "Enabled"}]},
            ["readOnly is true"],
        ),
        ({"securityContext": {"seccompProfile": {}}}, [".seccompProfile.type: Required"]),
        ({"securityContext": {"appArmorProfile": {"type": "Localhost"}}}, [".localhostProfile: Required"]),
        ({"securityContext": {"procMount": "Unmasked"}}, ["`hostUsers` must be false"]),
        ({"securityContext": {"allowPrivilegeEscalation": False, "privileged": True}}, ["cannot set `allow"]),
    ],
)
def test_a_container(container: JsonObject, expected: list[str]) -> None:
    found = told(pod(container, volumes=[EMPTY]))
    assert len(found) >= len(expected)
    assert all(message.startswith(C) for message in found)
    assert expected[0] in found[0]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"volumes": [{"name": "v", "hostPath": {"path": "/a/../b"}}]}, "spec.volumes[0].hostPath.path: "),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/a", "type": "X"}}]}, "spec.volumes[0].hostPath.type: "),
        ({"volumes": [{"name": "v", "configMap": {"name": "x", "defaultMode": 512}}]}, "between 0 and 0777"),
        (
            {"volumes": [{"name": "v", "secret": {"secretName": "x", "items": [{"key": "a", "path": "..a"}]}}]},
            "must not start with '..'",
        ),
        ({"volumes": [{"name": "v", "downwardAPI": {"items": [{"path": "x"}]}}]}, "one of fieldRef and"),
        (
            {"volumes": [{"name": "v", "projected": {"sources": [{"secret": {}}]}}]},
            "spec.volumes[0].projected.sources[0].secret.name: Required value",
        ),
        (
            {
                "volumes": [
                    {
                        "name": "v",
                        "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 1}}]},
                    }
                ]
            },
            "may not specify a duration less than 10 minutes",
        ),
        ({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "-1"}}]}, "emptyDir.sizeLimit: Forbidden"),
        ({"initContainers": [{"name": "i", "image": "i", "livenessProbe": TCP}]}, "livenessProbe: Forbidden"),
        ({"ephemeralContainers": [{"name": "e", "image": "i"}]}, "spec.ephemeralContainers: Forbidden"),
        ({"tolerations": [{"key": "a", "tolerationSeconds": 1}]}, "spec.tolerations[0].effect: "),
        ({"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]}, "value must be empty"),
        ({"tolerations": [{"key": "a", "effect": "X"}]}, "spec.tolerations[0].effect: Unsupported value"),
        (
            {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}},
            "must have at least one node selector term",
        ),
        (
            {
                "affinity": {
                    "podAffinity": {
                        "preferredDuringSchedulingIgnoredDuringExecution": [
                            {"weight": 0, "podAffinityTerm": {"topologyKey": "x"}}
                        ]
                    }
                }
            },
            "must be in the range 1-100",
        ),
        ({"topologySpreadConstraints": [{"topologyKey": "x"}]}, "whenUnsatisfiable: Unsupported"),
        ({"dnsPolicy": "None"}, "spec.dnsConfig: Required"),
        ({"dnsConfig": {"nameservers": ["x"]}}, "spec.dnsConfig.nameservers[0]: Invalid"),
        ({"dnsConfig": {"nameservers": ["1.1.1.1"] * 4}}, "must not have more than 3 nameservers"),
        ({"securityContext": {"sysctls": [{"name": "a b"}]}}, "spec.securityContext.sysctls[0].name: "),
        ({"securityContext": {"supplementalGroups": [-1]}}, "spec.securityContext.supplementalGroups[0]: "),
        ({"readinessGates": [{"conditionType": "a b"}]}, "spec.readinessGates[0].conditionType: "),
        ({"schedulingGates": [{"name": "a"}] * 2}, "spec.schedulingGates[1]: Duplicate"),
        ({"overhead": {"x": "1"}}, "spec.overhead.limits[x]: "),
        (
            {
                "hostNetwork": True,
                "containers": [OTHER_PORT],
            },
            "must match `containerPort`",
        ),
        (
            {
                "serviceAccountName": "",
                "volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}],
            },
            "must not be specified when serviceAccountName is not set",
        ),
    ],
)
def test_a_spec(spec: JsonObject, expected: str) -> None:
    found = told(pod(**spec))
    assert found
    assert expected in found[0]


def test_a_template_is_judged_at_its_own_path() -> None:
    spec = pod({"image": " i ", "imagePullPolicy": "X"})["spec"]
    (cause,) = spec_causes(spec, "spec.template.spec", whole=False)
    assert cause.field == "spec.template.spec.containers[0].imagePullPolicy"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {"containers": [{"name": "c", "image": "other"}]}, ""),
        ({}, {"containers": [{"name": "c", "image": ""}]}, "spec.containers[0].image: Required value"),
        ({}, {"containers": [{"name": x, "image": "i"} for x in "cd"]}, "spec.containers: Forbidden: pod updates"),
        ({}, {"containers": [{"name": "c", "image": "i", "args": ["x"]}]}, "spec: Forbidden: pod updates may not"),
        ({}, {"nodeName": "n"}, "spec: Forbidden"),
        ({}, {"activeDeadlineSeconds": 5}, ""),
        ({"activeDeadlineSeconds": 5}, {"activeDeadlineSeconds": 6}, "must be less than or equal to previous"),
        ({"activeDeadlineSeconds": 5}, {}, "must not update from a positive integer to nil"),
        ({}, {"tolerations": [{"operator": "Exists"}]}, ""),
        (
            {"tolerations": [{"operator": "Exists", "effect": "NoExecute"}]},
            {"tolerations": [{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}]},
            "",
        ),
        ({"tolerations": [{"operator": "Exists"}]}, {}, "existing toleration can not be modified"),
        ({"schedulingGates": [{"name": "a"}]}, {}, ""),
        ({}, {"schedulingGates": [{"name": "a"}]}, "only deletion is allowed"),
        ({"hostname": "A_B"}, {"hostname": "A_B"}, ""),
    ],
)
def test_updates(before: JsonObject, after: JsonObject, expected: str) -> None:
    found = [cause.message for cause in update_causes(pod(**after), pod(**before), binding=False)]
    assert (expected in found[0]) if expected else not found


def test_binding_sets_the_node() -> None:
    assert not update_causes(pod(nodeName="n"), pod(), binding=True)
