"""That the roles of the components grant what they use, and nothing else: by the API server's audit log.

Runs after all other tests of this directory. What no test does is listed with its reason.
"""

from __future__ import annotations

import datetime
import json
from typing import Any, Final, NamedTuple

import pytest
import yaml

from tests.cluster.control_plane import ControlPlane
from tests.cluster.install import MANIFESTS

COMPONENTS: Final = ("controller", "gateway", "webhook", "node")
_ACCOUNT: Final = "system:serviceaccount:knative-serving:"


class Right(NamedTuple):
    group: str
    resource: str
    verb: str


_OWNERS: Final = "asked for by the admission plug-in OwnerReferencesPermissionEnforcement, which is on here"
_SERVING: Final = "serving.knative.dev"

UNUSED_HERE: Final[dict[str, dict[Right, str]]] = {
    "controller": {
        **{
            Right(_SERVING, f"{plural}/finalizers", "update"): _OWNERS
            for plural in ("services", "configurations", "routes", "revisions")
        },
        Right(_SERVING, "revisions", "delete"): "a Configuration with more old Revisions than config-gc keeps",
        Right("", "serviceaccounts", "get"): "digests of images in a private registry",
        Right("", "events", "patch"): "something that happens again",
    },
    "gateway": {
        Right("", "secrets", "patch"): "a gateway that starts before the first controller",
        Right("coordination.k8s.io", "leases", "get"): "an orderly end, which gives the Lease up",
    },
    "webhook": {},
    "node": {
        Right("", "nodes", "patch"): "an agent that starts again with other labels",
        Right("", "events", "patch"): "something that happens again",
        Right("authentication.k8s.io", "tokenreviews", "create"): "a token that calls the kubelet API directly",
        Right("authorization.k8s.io", "subjectaccessreviews", "create"): "the same",
    },
}
"""Grants that no test needs, each with the case that does."""


def granted(component: str) -> set[Right]:
    documents = yaml.safe_load_all((MANIFESTS / "rbac" / f"{component}.yaml").read_text())
    return {
        Right(group, resource, verb)
        for document in documents
        for rule in document.get("rules", ())
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def requests(control_plane: ControlPlane, component: str) -> list[dict[str, Any]]:
    lines = control_plane.audit_log.read_text().splitlines()
    events = (json.loads(line) for line in lines)
    return [event for event in events if event["user"]["username"] == _ACCOUNT + component]


def right(event: dict[str, Any]) -> Right | None:
    reference = event.get("objectRef")
    if reference is None:
        return None
    parts = [reference["resource"], reference.get("subresource", "")]
    return Right(reference.get("apiGroup", ""), "/".join(filter(None, parts)), event["verb"])


def during_a_restart(control_plane: ControlPlane, event: dict[str, Any]) -> bool:
    at = datetime.datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
    return any(begin <= at <= end for begin, end in control_plane.restarts)


@pytest.mark.parametrize("component", COMPONENTS)
def test_nothing_was_forbidden(control_plane: ControlPlane, component: str) -> None:
    forbidden = {
        (right(event), event["requestURI"])
        for event in requests(control_plane, component)
        if event.get("responseStatus", {}).get("code") == 403
        and event["annotations"].get("authorization.k8s.io/decision") == "forbid"
        and not during_a_restart(control_plane, event)
    }
    assert not forbidden


@pytest.mark.parametrize("component", COMPONENTS)
def test_nothing_is_granted_that_is_not_used(
    request: pytest.FixtureRequest, control_plane: ControlPlane, component: str
) -> None:
    ran = {item.path.name for item in request.session.items}
    if not {"test_lifecycle.py", "test_objects.py", "test_node.py"} <= ran:
        pytest.skip("only after all other tests of this directory")
    used = {right(event) for event in requests(control_plane, component)}
    excused = UNUSED_HERE[component]
    assert sorted(granted(component) - used - excused.keys()) == []
    assert excused.keys() - granted(component) == set(), "an excuse for a grant that does not exist"
