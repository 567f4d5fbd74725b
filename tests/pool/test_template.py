from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.pod import Pod
from serving.pool.template import SUFFIX_ALPHABET, SUFFIX_SPACE, Placement, pod_for, pod_name, suffix_of
from tests.pool.support import revision

DIGEST = "registry.example/hello@sha256:" + "0" * 64


def env(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


def test_the_whole_pod() -> None:
    status = [{"name": "user-container", "imageDigest": DIGEST}]
    body = pod_for(revision(containerStatuses=status), suffix="bcdfg", placement=Placement(node_name="local-0"))
    assert body == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "hello-00001-deployment-bcdfg",
            "namespace": "shop",
            "labels": {
                "serving.knative.dev/service": "hello",
                "serving.knative.dev/configuration": "hello",
                "serving.knative.dev/configurationGeneration": "1",
                "serving.knative.dev/revision": "hello-00001",
                "serving.knative.dev/revisionUID": "rev-uid",
                "app": "hello-00001",
                "team": "blue",
            },
            "annotations": {
                "serving.knative.dev/creator": "admin",
                "example.com/note": "kept",
                "kubectl.kubernetes.io/default-container": "user-container",
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
                "nodeless.dev/await-drain": "true",
            },
            "ownerReferences": [
                {
                    "apiVersion": "serving.knative.dev/v1",
                    "kind": "Revision",
                    "name": "hello-00001",
                    "uid": "rev-uid",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "enableServiceLinks": False,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 45,
            "nodeName": "local-0",
            "containers": [
                {
                    "name": "user-container",
                    "image": DIGEST,
                    "resources": {},
                    "readinessProbe": {"successThreshold": 1, "tcpSocket": {"port": 8080}},
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "ports": [{"name": "user-port", "protocol": "TCP", "containerPort": 8080}],
                    "env": [
                        {"name": "K_REVISION", "value": "hello-00001"},
                        {"name": "K_CONFIGURATION", "value": "hello"},
                        {"name": "K_SERVICE", "value": "hello"},
                        {"name": "PORT", "value": "8080"},
                    ],
                }
            ],
        },
    }


SIDECAR: dict[str, Any] = {
    "timeoutSeconds": 600,
    "serviceAccountName": "robot",
    "imagePullSecrets": [{"name": "pull"}],
    "runtimeClassName": "kata",
    "securityContext": {"fsGroup": 7},
    "volumes": [{"name": "data", "emptyDir": {}}],
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "someFutureField": {"kept": True},
    "containers": [
        {
            "name": "web",
            "image": "web",
            "ports": [{"name": "h2c", "containerPort": 9000}],
            "env": [{"name": "A", "value": "1"}, {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s"}}}],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            "securityContext": {"runAsUser": 2020},
            "terminationMessagePolicy": "File",
            "readinessProbe": {"httpGet": {"path": "/ok"}, "periodSeconds": 0},
            "livenessProbe": {"httpGet": {"path": "/alive", "port": 8081}},
            "startupProbe": {"grpc": {"service": "x"}},
        },
        {"name": "helper", "image": "helper", "env": [{"name": "PORT", "value": "7"}]},
    ],
    "initContainers": [{"name": "prepare", "image": "prepare"}],
}


def test_several_containers_and_everything_the_user_set() -> None:
    status: dict[str, Any] = {
        "containerStatuses": [{"name": "web", "imageDigest": "web@sha256:1"}, {"name": "helper"}],
        "initContainerStatuses": [{"name": "prepare", "imageDigest": "prepare@sha256:2"}],
    }
    before = copy.deepcopy(SIDECAR)
    body = pod_for(revision(SIDECAR, **status), suffix="x", placement=Placement())
    assert before == SIDECAR, "the revision is not touched"
    spec = body["spec"]
    web, helper = spec["containers"]
    assert (web["image"], helper["image"]) == ("web@sha256:1", "helper")
    assert spec["initContainers"] == [{"name": "prepare", "image": "prepare@sha256:2"}]
    assert env(web)["PORT"] == "9000"
    assert env(helper)["PORT"] == "7", "a sidecar may have a port of its own"
    assert env(helper)["K_SERVICE"] == "hello"
    assert [entry["name"] for entry in web["env"]] == [
        "A", "SECRET", "K_REVISION", "K_CONFIGURATION", "K_SERVICE", "PORT",
    ]  # fmt: skip
    assert web["ports"] == [{"name": "h2c", "protocol": "TCP", "containerPort": 9000}]
    assert web["terminationMessagePolicy"] == "File"
    assert web["readinessProbe"] == {"httpGet": {"path": "/ok", "port": 9000}, "periodSeconds": 0}
    assert web["livenessProbe"] == {"httpGet": {"path": "/alive", "port": 8081}}
    assert web["startupProbe"] == {"grpc": {"service": "x", "port": 9000}}
    assert "readinessProbe" not in helper
    assert "ports" not in helper
    for field in ("serviceAccountName", "imagePullSecrets", "securityContext", "volumes", "someFutureField"):
        assert spec[field] == SIDECAR[field]
    assert "timeoutSeconds" not in spec
    assert "nodeName" not in spec
    assert body["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] == "web"


def test_placement_adds_and_never_removes() -> None:
    placement = Placement(
        scheduler_name="eci",
        labels={"alibabacloud.com/eci": "true"},
        annotations={"k8s.aliyun.com/eci-use-specs": "2-4Gi"},
        node_selector={"type": "virtual-kubelet"},
        tolerations=({"key": "virtual-kubelet", "operator": "Exists"},),
    )
    body = pod_for(revision(SIDECAR), suffix="x", placement=placement, runtime_class_name="default")
    assert body["metadata"]["labels"]["alibabacloud.com/eci"] == "true"
    assert body["metadata"]["annotations"]["k8s.aliyun.com/eci-use-specs"] == "2-4Gi"
    assert body["spec"]["schedulerName"] == "eci"
    assert body["spec"]["nodeSelector"] == {"type": "virtual-kubelet"}
    assert [entry["key"] for entry in body["spec"]["tolerations"]] == ["a", "virtual-kubelet"]


@pytest.mark.parametrize(
    ("own", "placed", "default", "expected"),
    [
        ("kata", "gvisor", "runc", "gvisor"),
        ("kata", "", "runc", "kata"),
        ("", "", "runc", "runc"),
        ("", "", "", None),
    ],
)
def test_runtime_class(own: str, placed: str, default: str, expected: str | None) -> None:
    spec = {"containers": [{"name": "c", "image": "i"}], **({"runtimeClassName": own} if own else {})}
    placement = Placement(runtime_class_name=placed)
    body = pod_for(revision(spec), suffix="x", placement=placement, runtime_class_name=default)
    assert body["spec"].get("runtimeClassName") == expected


def test_a_container_without_a_probe_gets_the_default_one() -> None:
    body = pod_for(revision({"containers": [{"name": "c", "image": "i"}]}), suffix="x", placement=Placement())
    container = body["spec"]["containers"][0]
    assert container["readinessProbe"] == {"tcpSocket": {"port": 8080}, "successThreshold": 1}
    assert body["spec"]["terminationGracePeriodSeconds"] == 300


def test_users_labels_and_annotations_win() -> None:
    raw = msgspec.to_builtins(revision())
    raw["metadata"]["labels"]["app"] = "mine"
    raw["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] = "false"
    body = pod_for(msgspec.convert(raw, type(revision())), suffix="x", placement=Placement())
    assert body["metadata"]["labels"]["app"] == "mine"
    assert body["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"


def test_several_containers_without_a_port_are_an_error() -> None:
    spec = {"containers": [{"name": "a", "image": "a"}, {"name": "b", "image": "b"}]}
    with pytest.raises(ValueError, match="declares a port"):
        pod_for(revision(spec), suffix="x", placement=Placement())


@given(st.integers(1, 63), st.integers(0, SUFFIX_SPACE - 1))
def test_names(length: int, number: int) -> None:
    name = pod_name("r" * length, suffix_of(number))
    assert len(name) <= 63
    assert name.endswith(f"-deployment-{suffix_of(number)}")
    assert length > 43 or name.startswith("r" * length + "-deployment-")


@given(st.integers(0, SUFFIX_SPACE - 1), st.integers(0, SUFFIX_SPACE - 1))
def test_suffixes_differ(one: int, other: int) -> None:
    assert (suffix_of(one) == suffix_of(other)) == (one == other)
    assert set(suffix_of(one)) <= set(SUFFIX_ALPHABET)


field_names = st.text("xyz", min_size=1, max_size=3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("abc", max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(field_names, inner, max_size=2),
    max_leaves=5,
)


@given(st.dictionaries(st.text("xyz", min_size=1, max_size=4), json_values, max_size=4), json_values)
def test_unknown_fields_survive(extra: dict[str, Any], inner: Any) -> None:
    spec = {**extra, "containers": [{"name": "c", "image": "i", "future": inner}]}
    body = pod_for(revision(spec), suffix="x", placement=Placement())
    assert {key: body["spec"][key] for key in extra} == extra
    assert body["spec"]["containers"][0]["future"] == inner
    assert msgspec.convert(body, Pod).metadata.controller_ref() is not None


def test_the_scheme_of_a_probe_is_spelled_as_kubernetes_wants_it() -> None:
    probe = {"httpGet": {"path": "/", "scheme": "http"}}
    spec = {"containers": [{"name": "c", "image": "i", "readinessProbe": probe}]}
    body = pod_for(revision(spec), suffix="x", placement=Placement())
    found = body["spec"]["containers"][0]["readinessProbe"]
    assert found == {"httpGet": {"path": "/", "scheme": "HTTP", "port": 8080}}
