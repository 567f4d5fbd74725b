"""Environment, command, user, resources, pull secrets: tables of Kubernetes' rules."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.pod import Container, PodSpec
from serving.local.images.protocol import Credentials, ImageConfig
from serving.local.node.command import argv, identity, working_dir
from serving.local.node.envvars import ConfigError, KeyedObjects, PodFacts, environment, expand, with_image
from serving.local.node.pullsecrets import credentials_for
from serving.local.node.resources import container_limits, misfit, pod_limits
from serving.local.node.service_env import service_environment
from tests.local.node.pods import container, make_pod, pod_json, typed

OBJECTS = KeyedObjects(
    config_maps={"c": {"k": b"v", "bad=key": b"x"}}, secrets={"s": {"k": b"hidden", "only": b"s"}}
)
FACTS = PodFacts(pod_ip="198.18.0.9", host_ip="10.0.0.1", allocatable={"cpu": "2", "memory": "4Gi"})


def env_of(objects: KeyedObjects = OBJECTS, **fields: Any) -> dict[str, str]:
    item = pod_json(containers=[container(**fields)], serviceAccountName="sa")
    item["metadata"] |= {"labels": {"l": "1"}, "annotations": {"a": 'q"'}}
    pod = typed(item)
    return environment(pod.spec.containers[0], pod, objects, FACTS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("$(A)$(B)x", "12x"),
        ("$(NONE)", "$(NONE)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A", "$A"),
        ("end$", "end$"),
        ("$(A", "$(A"),
        ("$()", "$()"),
        ("a$$b", "a$b"),
        ("", ""),
        ("$(A)$", "1$"),
        ("$$", "$"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


@given(st.text(alphabet="$()AB x"))
def test_expansion_without_dollars_or_names_is_identity(text: str) -> None:
    assert expand(text.replace("$", "$$"), {"A": "1"}) == text


def test_order_and_precedence() -> None:
    values = env_of(
        envFrom=[
            {"configMapRef": {"name": "c"}},
            {"secretRef": {"name": "s"}},
            {"prefix": "P_", "configMapRef": {"name": "c"}},
            {"configMapRef": {"name": "absent", "optional": True}},
        ],
        env=[
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(k)-$(C)"},
            {"name": "C", "value": "late"},
            {"name": "A", "value": "again"},
            {"name": "only", "value": "mine"},
            {"name": "EMPTY"},
        ],
    )
    assert values == {
        "k": "hidden",
        "only": "mine",
        "P_k": "v",
        "A": "again",
        "B": "1-hidden-$(C)",
        "C": "late",
        "EMPTY": "",
    }


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"configMapKeyRef": {"name": "c", "key": "k"}}, "v"),
        ({"secretKeyRef": {"name": "s", "key": "k"}}, "hidden"),
        ({"configMapKeyRef": {"name": "c", "key": "no", "optional": True}}, None),
        ({"secretKeyRef": {"name": "no", "key": "k", "optional": True}}, None),
        ({"fieldRef": {"fieldPath": "metadata.name"}}, "p"),
        ({"fieldRef": {"fieldPath": "metadata.namespace"}}, "default"),
        ({"fieldRef": {"fieldPath": "metadata.uid"}}, "uid-p"),
        ({"fieldRef": {"fieldPath": "metadata.labels['l']"}}, "1"),
        ({"fieldRef": {"fieldPath": "metadata.labels['none']"}}, ""),
        ({"fieldRef": {"fieldPath": "metadata.annotations['a']"}}, 'q"'),
        ({"fieldRef": {"fieldPath": "spec.nodeName"}}, "node-1"),
        ({"fieldRef": {"fieldPath": "spec.serviceAccountName"}}, "sa"),
        ({"fieldRef": {"fieldPath": "status.podIP"}}, "198.18.0.9"),
        ({"fieldRef": {"fieldPath": "status.hostIP"}}, "10.0.0.1"),
        ({"resourceFieldRef": {"resource": "limits.cpu"}}, "1"),
        ({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}, "500"),
        ({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}, "4096"),
        ({"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}, "500"),
        ({"resourceFieldRef": {"resource": "requests.memory"}}, "0"),
    ],
)
def test_value_from(source: dict[str, Any], expected: str | None) -> None:
    values = env_of(env=[{"name": "X", "valueFrom": source}], resources={"limits": {"cpu": "500m"}})
    assert values.get("X") == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"envFrom": [{"configMapRef": {"name": "no"}}]}, 'configmap "no" not found'),
        ({"envFrom": [{"secretRef": {"name": "no"}}]}, 'secret "no" not found'),
        (
            {"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "no"}}}]},
            "couldn't find key no in ConfigMap default/c",
        ),
        (
            {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "no"}}}]},
            "couldn't find key no in Secret default/s",
        ),
        (
            {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k"}}}]},
            'secret "no" not found',
        ),
        (
            {"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}}]},
            "unsupported fieldPath: spec.nope",
        ),
        (
            {"env": [{"name": "X", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}]},
            "unsupported container resource : limits.gpu",
        ),
    ],
)
def test_configuration_errors(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        env_of(**fields)
    assert caught.value.message == message
    assert caught.value.reason == "CreateContainerConfigError"


def test_image_environment_lies_below() -> None:
    merged = dict(with_image(("PATH=/bin", "A=image", "NOVALUE"), {"A": "pod"}))
    assert merged == {"PATH": "/bin", "A": "pod", "NOVALUE": ""}


IMAGE = ImageConfig(entrypoint=("/entry", "$(A)"), cmd=("cmd",), working_dir="/srv", user="65532:1")


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ((), (), ("/entry", "$(A)", "cmd")),
        (("c",), (), ("c",)),
        ((), ("$(A)",), ("/entry", "$(A)", "1")),
        (("c", "$(A)"), ("a",), ("c", "1", "a")),
    ],
)
def test_command_rules(command: tuple[str, ...], args: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert argv(Container(command=command, args=args), IMAGE, {"A": "1"}) == expected


def test_nothing_to_run() -> None:
    with pytest.raises(ConfigError, match="no command specified") as caught:
        argv(Container(), ImageConfig(), {})
    assert caught.value.reason == "CreateContainerError"


def test_working_directory() -> None:
    assert working_dir(Container(working_dir="/w"), IMAGE) == "/w"
    assert working_dir(Container(), IMAGE) == "/srv"
    assert working_dir(Container(), ImageConfig()) == "/"


@pytest.mark.parametrize(
    ("own", "shared", "user", "groups"),
    [
        ({}, {}, "65532:1", ()),
        ({"runAsUser": 2020}, {}, "2020", ()),
        ({"runAsUser": 0}, {"runAsUser": 5}, "0", ()),
        ({}, {"runAsUser": 5, "runAsGroup": 6, "fsGroup": 7, "supplementalGroups": [8, 7]}, "5:6", (8, 7)),
        ({"runAsGroup": 9}, {}, "65532:9", ()),
        ({"runAsNonRoot": True}, {}, "65532:1", ()),
    ],
)
def test_user(own: dict[str, Any], shared: dict[str, Any], user: str, groups: tuple[int, ...]) -> None:
    pod = make_pod(containers=[container(securityContext=own)], securityContext=shared)
    found = identity(pod.spec.containers[0], pod, IMAGE)
    assert (found.user, found.groups) == (user, groups)


@pytest.mark.parametrize(
    ("image_user", "uid", "text"),
    [
        ("", None, "container has runAsNonRoot and image will run as root"),
        ("0:0", None, "container has runAsNonRoot and image will run as root"),
        ("nobody", None, "image has non-numeric user (nobody), cannot verify user is non-root"),
        ("5", 0, "container's runAsUser breaks non-root policy"),
    ],
)
def test_non_root_is_kept(image_user: str, uid: int | None, text: str) -> None:
    security = {"runAsNonRoot": True} | ({"runAsUser": uid} if uid is not None else {})
    pod = make_pod(containers=[container(securityContext=security)])
    with pytest.raises(ConfigError) as caught:
        identity(pod.spec.containers[0], pod, ImageConfig(user=image_user))
    assert text in caught.value.message
    assert caught.value.message.endswith('(pod: "p_default(uid-p)", container: app)')


def test_limits() -> None:
    spec = container(resources={"limits": {"cpu": "1", "memory": "134217729"}, "requests": {"cpu": "250m"}})
    found = container_limits(msgspec.convert(spec, Container))
    assert (found.cpu_millis, found.cpu_shares, found.memory_bytes) == (1000, 256, 134217728)
    assert container_limits(Container()).memory_bytes is None


def test_pod_limits_are_sums_unless_somebody_is_unlimited() -> None:
    limited = container(resources={"limits": {"cpu": "500m", "memory": "64Mi"}})
    larger = container(resources={"limits": {"cpu": "2", "memory": "32Mi"}})
    spec = msgspec.convert({"containers": [limited, limited], "initContainers": [larger]}, PodSpec)
    assert (pod_limits(spec).cpu_millis, pod_limits(spec).memory_bytes) == (2000, 128 << 20)
    spec = msgspec.convert({"containers": [limited, container()]}, PodSpec)
    assert (pod_limits(spec).cpu_millis, pod_limits(spec).memory_bytes) == (None, None)


def test_misfit() -> None:
    spec = msgspec.convert({"containers": [container(resources={"requests": {"cpu": "3"}})]}, PodSpec)
    found = misfit(spec, {"cpu": "2", "memory": "1Gi"})
    assert found is not None
    assert found[0] == "OutOfcpu"
    assert misfit(spec, {"cpu": "4", "memory": "1Gi"}) is None


AUTH = base64.b64encode(b"user:pw").decode()


@pytest.mark.parametrize(
    ("reference", "host", "found"),
    [
        ("reg.example/a/b:1", "reg.example", True),
        ("reg.example/a/b:1", "https://reg.example/v2/", True),
        ("reg.example/a/b:1", "reg.example/a", True),
        ("reg.example/a/b:1", "reg.example/other", False),
        ("localhost:5000/a", "localhost:5000", True),
        ("hello", "https://index.docker.io/v1/", True),
        ("user/hello", "reg.example", False),
    ],
)
def test_pull_secrets(reference: str, host: str, found: bool) -> None:
    secret = {".dockerconfigjson": msgspec.json.encode({"auths": {host: {"auth": AUTH}}})}
    expected = Credentials("user", "pw") if found else None
    assert credentials_for(reference, [{".dockerconfigjson": b"not json"}, secret]) == expected


def test_the_api_server_s_address_lies_below_the_pod_s_own_variables() -> None:
    services = service_environment(("kubernetes.default.svc", 443))
    assert services["KUBERNETES_SERVICE_HOST"] == "kubernetes.default.svc"
    assert services["KUBERNETES_PORT"] == services["KUBERNETES_PORT_443_TCP"] == "tcp://kubernetes.default.svc:443"
    assert service_environment(None) == {}
    app = container(
        env=[
            {"name": "KUBERNETES_SERVICE_PORT", "value": "1"},
            {"name": "URL", "value": "https://$(KUBERNETES_SERVICE_HOST)"},
        ]
    )
    pod = make_pod(containers=[app])
    values = environment(pod.spec.containers[0], pod, KeyedObjects(), PodFacts(), services=services)
    assert (values["KUBERNETES_SERVICE_PORT"], values["URL"]) == ("1", "https://kubernetes.default.svc")
