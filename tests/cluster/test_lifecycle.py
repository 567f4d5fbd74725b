"""A Service's life on a real API server: created, woken by a request, split, rolled back, deleted."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.cluster.components import Components
from tests.cluster.install import kubectl
from tests.cluster.namespaces import DOMAIN, KINDS, Namespace, make, service


def test_from_nothing_to_an_answer_and_back(namespace: Namespace) -> None:
    namespace.apply(service("hello", "one"))
    namespace.ready("hello")
    assert namespace.ask("hello") == (200, "Hello one!")
    hello = namespace.get("ksvc", "hello")
    assert hello["metadata"]["annotations"]["serving.knative.dev/creator"] == "admin"
    assert hello["status"]["observedGeneration"] == hello["metadata"]["generation"] == 1
    assert hello["status"]["latestReadyRevisionName"] == "hello-00001"
    assert [condition["status"] for condition in hello["status"]["conditions"]] == ["True"] * 3

    namespace.until(lambda: not namespace.get("pod"), "scaled to zero")
    assert namespace.ask("hello") == (200, "Hello one!"), "woken by the request"
    assert len(namespace.get("pod")) == 1

    namespace.kubectl("delete", "ksvc", "hello", "--cascade=foreground", "--wait", "--timeout=60s")
    for kind in KINDS.split(","):
        namespace.until(lambda kind=kind: not namespace.get(kind), f"no {kind} is left")  # type: ignore[misc]
    namespace.until(lambda: namespace.ask("hello")[0] == 404, "the gateway has forgotten it")


def test_traffic_is_split_between_revisions(namespace: Namespace) -> None:
    namespace.apply(service("split", "blue", revision="split-blue"))
    namespace.ready("split")
    green = service("split", "green", revision="split-green")
    traffic = [
        {"revisionName": "split-blue", "percent": 50, "tag": "blue"},
        {"revisionName": "split-green", "percent": 50, "tag": "green"},
    ]
    green["spec"]["traffic"] = traffic
    namespace.apply(green)
    namespace.ready("split")
    assert namespace.ask("blue-split") == (200, "Hello blue!")
    assert namespace.ask("green-split") == (200, "Hello green!")
    answers = Counter(namespace.ask("split") for _ in range(100))
    assert answers.keys() == {(200, "Hello blue!"), (200, "Hello green!")}
    assert min(answers.values()) >= 25
    urls = {target["tag"]: target["url"] for target in namespace.get("ksvc", "split")["status"]["traffic"]}
    assert urls["blue"] == f"http://blue-split.{namespace.name}.{DOMAIN}"

    changed = service("split", "red", revision="split-green")
    with pytest.raises(AssertionError, match="Saw the following changes without a name change"):
        namespace.apply(changed)


def test_a_namespace_goes_with_everything_in_it(components: Components, name: str) -> None:
    namespace = make(components, f"test-{name}")
    namespace.apply(service("hello", "you"))
    namespace.ready("hello")
    kubectl(components.control_plane, "delete", "namespace", namespace.name, "--wait", "--timeout=60s")
    assert namespace.ask("hello")[0] == 404


def test_a_pod_that_somebody_deletes_is_replaced(namespace: Namespace) -> None:
    body = service("kept", "you")
    body["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/min-scale"] = "1"
    namespace.apply(body)
    namespace.ready("kept")
    (first,) = namespace.get("pod")
    namespace.kubectl("delete", "pod", first["metadata"]["name"], "--wait", "--timeout=60s")
    assert namespace.ask("kept") == (200, "Hello you!")
    (second,) = namespace.until(
        lambda: [pod for pod in namespace.get("pod") if pod["status"].get("phase") == "Running"], "another pod"
    )
    assert second["metadata"]["uid"] != first["metadata"]["uid"]


def test_all_processes_may_be_killed(namespace: Namespace) -> None:
    components = namespace.components
    namespace.apply(service("tough", "you"))
    namespace.ready("tough")
    for process in ("controller", "webhook"):
        components.kill(process)
    assert namespace.ask("tough") == (200, "Hello you!")
    components.start("webhook", "--port", "0", "--register")
    components.start_controller()
    second = service("tough", "me")
    namespace.apply(second)
    namespace.ready("tough")
    assert namespace.ask("tough") == (200, "Hello me!")


def test_a_standby_takes_over(namespace: Namespace) -> None:
    components = namespace.components
    listen = f"unix:{components.directory / 'reports-2'}"
    options = ("--listen", listen, "--identity", "standby", "--images", str(components.data_dir / "images"))
    components.start("standby", *options, account="controller", command="controller", stands_by=True)
    namespace.apply(service("lasting", "one"))
    namespace.ready("lasting")
    components.kill("controller")
    namespace.apply(service("lasting", "two"))
    namespace.until(lambda: namespace.ask("lasting") == (200, "Hello two!"), "the standby carries the change out")
    assert "leading nodeless-controller-00 as standby" in components.log("standby").read_text()
    components.stop("standby")
    components.start_controller()


def test_the_api_server_may_be_killed(namespace: Namespace) -> None:
    """Running pods go on; what was held or decided in between is carried out when it is back."""
    control_plane = namespace.components.control_plane
    body = service("steady", "one")
    body["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/min-scale"] = "1"
    namespace.apply(body)
    namespace.ready("steady")
    control_plane.stop_api_server()
    try:
        assert namespace.ask("steady") == (200, "Hello one!")
    finally:
        control_plane.start_api_server()
    assert namespace.ask("steady") == (200, "Hello one!")
    namespace.apply(service("after", "two"))
    namespace.ready("after")
    assert namespace.ask("after") == (200, "Hello two!")
    assert namespace.ask("steady") == (200, "Hello one!")


def test_what_is_refused_says_why(namespace: Namespace) -> None:
    body = service("bad", "you")
    body["spec"]["template"]["spec"]["containerConcurrency"] = -1
    with pytest.raises(AssertionError) as refused:
        namespace.apply(body)
    assert (
        'admission webhook "validation.webhook.serving.knative.dev" denied the request: validation failed: '
        "expected 0 <= -1 <= 1000: spec.template.spec.containerConcurrency"
    ) in str(refused.value)
    config = {"data": {"stable-window": "1s"}}
    with pytest.raises(AssertionError, match=r'webhook "config\.webhook\.serving\.knative\.dev" denied'):
        kubectl(
            namespace.components.control_plane,
            *(
                "patch",
                "cm",
                "config-autoscaler",
                "-n",
                "knative-serving",
                "--type=merge",
                "-p",
                json.dumps(config),
            ),
        )
