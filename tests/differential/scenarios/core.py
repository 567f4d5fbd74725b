"""Secrets, Services, ServiceAccounts, Leases, Deployments: what the server fills in and refuses."""

from __future__ import annotations

from typing import Any, Final

from tests.differential.model import STRATEGIC_PATCH, Scenario, Step, get, patch, post, put
from tests.differential.scenarios.bodies import ACCOUNTS, DEPLOYMENTS, LEASES, SECRETS, SERVICES


def _secret(id: str, name: str = "x", **fields: Any) -> Step:
    return post(id, SECRETS, {"metadata": {"name": name}, **fields})


def _service(id: str, name: str = "x", **spec: Any) -> Step:
    return post(id, SERVICES, {"metadata": {"name": name}, "spec": spec})


def _lease(id: str, name: str = "x", **spec: Any) -> Step:
    return post(id, LEASES, {"metadata": {"name": name}, "spec": spec})


def _deployment(id: str, name: str = "x", containers: Any = ({"name": "c", "image": "i"},), **spec: Any) -> Step:
    body = {
        "metadata": {"name": name},
        "spec": {
            "paused": True,
            "replicas": 0,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": list(containers)}},
            **spec,
        },
    }
    return post(id, DEPLOYMENTS, body)


_HTTP: Final = [{"port": 80}]

SCENARIOS: Final = (
    Scenario(
        name="secrets",
        steps=(
            _secret("data", "a", data={"k": "dg=="}),
            _secret("text", "b", stringData={"k": "v"}),
            _secret("text wins", "c", data={"k": "dg==", "l": "dg=="}, stringData={"k": "w"}),
            _secret("not base64", data={"k": "?"}),
            _secret("bad key", data={"a b": "dg=="}),
            _secret("number", stringData={"k": 1}),
            _secret("type", "d", type="example.dev/t", data={}),
            _secret("too large", data={"k": "A" * 1_500_000}),
            _secret("pull secret", "e", type="kubernetes.io/dockerconfigjson", data={".dockerconfigjson": "e30="}),
            _secret("pull secret without its key", type="kubernetes.io/dockerconfigjson", data={}),
            _secret(
                "pull secret is no JSON", type="kubernetes.io/dockerconfigjson", data={".dockerconfigjson": "eA=="}
            ),
            _secret("old pull secret", type="kubernetes.io/dockercfg", data={}),
            _secret("basic auth", type="kubernetes.io/basic-auth", data={}),
            _secret("ssh auth", type="kubernetes.io/ssh-auth", data={}),
            _secret("tls without its keys", type="kubernetes.io/tls", data={}),
            _secret("token without an account", type="kubernetes.io/service-account-token", data={}),
            put("change", f"{SECRETS}/a", {"metadata": {"name": "a"}, "stringData": {"n": "1"}}),
            put("type cannot change", f"{SECRETS}/a", {"metadata": {"name": "a"}, "type": "example.dev/t"}),
            patch("text is merged", f"{SECRETS}/a", {"stringData": {"m": "2"}}),
            patch("text is merged strategically", f"{SECRETS}/a", {"stringData": {"o": "3"}}, STRATEGIC_PATCH),
            put(
                "immutable", f"{SECRETS}/a", {"metadata": {"name": "a"}, "data": {"k": "dg=="}, "immutable": True}
            ),
            put(
                "immutable data",
                f"{SECRETS}/a",
                {"metadata": {"name": "a"}, "data": {"k": "dA=="}, "immutable": True},
            ),
            put("immutable is unset", f"{SECRETS}/a", {"metadata": {"name": "a"}, "data": {"k": "dg=="}}),
            get("in the end", f"{SECRETS}/a"),
        ),
    ),
    Scenario(
        name="services",
        steps=(
            Step(
                id="cluster IP",
                method="POST",
                path=SERVICES,
                body={"metadata": {"name": "a"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}},
                save="a",
            ),
            _service("headless", "b", clusterIP="None", ports=_HTTP),
            _service("external name", "c", type="ExternalName", externalName="a.example.dev"),
            _service("external name without a name", type="ExternalName"),
            _service("external name is bad", type="ExternalName", externalName="a b"),
            _service(
                "external name with a port",
                "d",
                type="ExternalName",
                externalName="a.example.dev",
                ports=[{"name": "http2", "port": 80, "appProtocol": "kubernetes.io/h2c"}],
            ),
            _service("node port", "e", type="NodePort", ports=_HTTP),
            _service("load balancer", "f", type="LoadBalancer", ports=_HTTP),
            _service("no ports"),
            _service("headless without ports", "g", clusterIP="None"),
            _service("unknown type", type="Bogus", ports=_HTTP),
            _service("port 0", ports=[{"port": 0}]),
            _service("port is too high", ports=[{"port": 65536}]),
            _service("two ports without names", ports=[{"port": 80}, {"port": 81}]),
            _service("same port twice", ports=[{"name": "a", "port": 80}, {"name": "b", "port": 80}]),
            _service("same name twice", ports=[{"name": "a", "port": 80}, {"name": "a", "port": 81}]),
            _service("bad port name", ports=[{"name": "A_B", "port": 80}]),
            _service("bad target", ports=[{"port": 80, "targetPort": "A_B"}]),
            _service("target is too high", ports=[{"port": 80, "targetPort": 70000}]),
            _service("unknown protocol", ports=[{"port": 80, "protocol": "ICMP"}]),
            _service("bad cluster IP", clusterIP="x", ports=_HTTP),
            _service("bad selector", selector={"a": "b c"}, ports=_HTTP),
            _service("session affinity", sessionAffinity="Bogus", ports=_HTTP),
            _service("affinity by address", "h", sessionAffinity="ClientIP", ports=_HTTP),
            _service("node port of a cluster IP", ports=[{"port": 80, "nodePort": 30000}]),
            _service("node port out of range", type="NodePort", ports=[{"port": 80, "nodePort": 5}]),
            put(
                "address is kept",
                f"{SERVICES}/a",
                {"metadata": {"name": "a"}, "spec": {"selector": {"a": "c"}, "ports": [{"port": 81}]}},
            ),
            put(
                "address cannot change",
                f"{SERVICES}/a",
                {"metadata": {"name": "a"}, "spec": {"clusterIP": "10.96.200.200", "ports": _HTTP}},
            ),
            put(
                "becomes headless",
                f"{SERVICES}/a",
                {"metadata": {"name": "a"}, "spec": {"clusterIP": "None", "ports": _HTTP}},
            ),
            put(
                "becomes an external name",
                f"{SERVICES}/a",
                {"metadata": {"name": "a"}, "spec": {"type": "ExternalName", "externalName": "b.example.dev"}},
            ),
            put(
                "becomes a cluster IP",
                f"{SERVICES}/a",
                {"metadata": {"name": "a"}, "spec": {"type": "ClusterIP", "ports": _HTTP}},
            ),
            patch(
                "status", f"{SERVICES}/f/status", {"status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}
            ),
            patch(
                "status of a wrong address",
                f"{SERVICES}/f/status",
                {"status": {"loadBalancer": {"ingress": [{"ip": "x"}]}}},
            ),
            get("in the end", f"{SERVICES}/a"),
        ),
    ),
    Scenario(
        name="service accounts and leases",
        steps=(
            post("account", ACCOUNTS, {"metadata": {"name": "a"}}),
            post(
                "account with secrets",
                ACCOUNTS,
                {
                    "metadata": {"name": "b"},
                    "imagePullSecrets": [{"name": "x"}],
                    "secrets": [{"name": "y"}],
                    "automountServiceAccountToken": False,
                },
            ),
            post("bad name", ACCOUNTS, {"metadata": {"name": "A"}}),
            post("token", f"{ACCOUNTS}/a/token", {"spec": {"audiences": ["x"], "expirationSeconds": 3600}}),
            post("token for too short", f"{ACCOUNTS}/a/token", {"spec": {"expirationSeconds": 10}}),
            post("token for too long", f"{ACCOUNTS}/a/token", {"spec": {"expirationSeconds": 2**32 + 1}}),
            post(
                "token bound to an absent pod",
                f"{ACCOUNTS}/a/token",
                {"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "none"}}},
            ),
            post(
                "token bound to a bad kind",
                f"{ACCOUNTS}/a/token",
                {"spec": {"boundObjectRef": {"kind": "Bogus", "apiVersion": "v1", "name": "none"}}},
            ),
            post("token of an absent account", f"{ACCOUNTS}/none/token", {"spec": {}}),
            get("tokens cannot be read", f"{ACCOUNTS}/a/token"),
            _lease(
                "lease",
                "a",
                holderIdentity="me",
                leaseDurationSeconds=15,
                acquireTime="2001-01-01T00:00:00.000000Z",
                renewTime="2001-01-01T00:00:00.000000Z",
                leaseTransitions=0,
            ),
            _lease("lease, times with seconds", "b", renewTime="2001-01-01T00:00:00Z"),
            _lease("no duration", leaseDurationSeconds=0),
            _lease("negative transitions", leaseTransitions=-1),
            _lease("bad time", renewTime="soon"),
            _lease("empty holder", holderIdentity=""),
            put(
                "lease is taken",
                f"{LEASES}/a",
                {"metadata": {"name": "a"}, "spec": {"holderIdentity": "you", "leaseTransitions": 1}},
            ),
            put(
                "lease is made by PUT",
                f"{LEASES}/c",
                {"metadata": {"name": "c"}, "spec": {"holderIdentity": "me"}},
            ),
            put(
                "lease with a version is not made",
                f"{LEASES}/d",
                {"metadata": {"name": "d", "resourceVersion": "1"}, "spec": {}},
            ),
        ),
    ),
    Scenario(
        name="deployments",
        steps=(
            _deployment("create", "a"),
            _deployment("no containers", containers=()),
            _deployment("container without a name", containers=({"image": "i"},)),
            _deployment("container without an image", containers=({"name": "c"},)),
            _deployment("no selector", selector=None),
            _deployment("empty selector", selector={}),
            _deployment("selector of others", selector={"matchLabels": {"a": "c"}}),
            _deployment("negative replicas", replicas=-1),
            _deployment("unknown strategy", strategy={"type": "Bogus"}),
            _deployment(
                "restart policy",
                template={
                    "metadata": {"labels": {"a": "b"}},
                    "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]},
                },
            ),
            get("scale", f"{DEPLOYMENTS}/a/scale"),
            patch("scale it", f"{DEPLOYMENTS}/a/scale", {"spec": {"replicas": 0}}),
            patch(
                "selector cannot change",
                f"{DEPLOYMENTS}/a",
                {
                    "spec": {
                        "selector": {"matchLabels": {"x": "y"}},
                        "template": {"metadata": {"labels": {"x": "y"}}},
                    }
                },
            ),
            patch(
                "status",
                f"{DEPLOYMENTS}/a/status",
                {"status": {"observedGeneration": 1}},
                view=lambda body: (body.get("message"), body.get("metadata", {}).get("generation")),
            ),
        ),
    ),
)
