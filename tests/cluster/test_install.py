"""What a cluster's administrator does: apply the manifests, twice, and look at what came of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.control_plane import ControlPlane
from tests.cluster.install import MANIFESTS, install, kubectl

DEFINITIONS = sorted(path.stem for path in (MANIFESTS / "crds").glob("*.yaml"))


def get(control_plane: ControlPlane, *arguments: str) -> Any:
    return json.loads(kubectl(control_plane, "get", *arguments, "-o", "json"))


@pytest.mark.parametrize("stem", DEFINITIONS)
def test_the_definitions_are_structural_and_served(control_plane: ControlPlane, stem: str) -> None:
    name = yaml.safe_load((MANIFESTS / "crds" / f"{stem}.yaml").read_text())["metadata"]["name"]
    kubectl(control_plane, "wait", "--for=condition=Established", f"crd/{name}", "--timeout=30s")
    conditions = {
        condition["type"]: condition["status"]
        for condition in get(control_plane, "crd", name)["status"]["conditions"]
    }
    assert conditions["NamesAccepted"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"


@pytest.mark.parametrize(
    ("short", "columns"),
    [
        ("ksvc", "NAME URL LATESTCREATED LATESTREADY READY REASON"),
        ("kservice", "NAME URL LATESTCREATED LATESTREADY READY REASON"),
        ("cfg", "NAME LATESTCREATED LATESTREADY READY REASON"),
        ("config", "NAME LATESTCREATED LATESTREADY READY REASON"),
        ("rev", "NAME CONFIG_NAME GENERATION READY REASON ACTUAL_REPLICAS DESIRED_REPLICAS"),
        ("rt", "NAME URL READY REASON"),
        ("dm", "NAME URL READY REASON"),
        ("cdc", "NAME AGE"),
        ("kpa", "NAME DESIREDSCALE ACTUALSCALE READY REASON"),
        ("sks", "NAME MODE ACTIVATORS SERVICENAME PRIVATESERVICENAME READY REASON"),
        ("king", "NAME READY REASON"),
        ("kcert", "NAME READY REASON"),
        ("images.caching.internal.knative.dev", "NAME IMAGE"),
    ],
)
def test_short_names_and_columns(control_plane: ControlPlane, short: str, columns: str) -> None:
    resource = next(
        item
        for group in _discovery(control_plane)
        for item in group["resources"]
        if short in (*item.get("shortNames", ()), f"{item['resource']}.{group['group']}")
    )
    path = (
        f"/apis/{resource['responseKind']['group']}/{resource['responseKind']['version']}/{resource['resource']}"
    )
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    table = control_plane.request("GET", path, accept=accept)
    shown = [column["name"].replace(" ", "_").upper() for column in table["columnDefinitions"]]
    assert shown == columns.split()
    assert kubectl(control_plane, "get", short, "-A", "--ignore-not-found") == ""


def _discovery(control_plane: ControlPlane) -> list[Any]:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    groups = control_plane.request("GET", "/apis", accept=accept)["items"]
    return [
        {"group": group["metadata"]["name"], "resources": version["resources"]}
        for group in groups
        if group["metadata"]["name"].endswith("knative.dev")
        for version in group["versions"]
    ]


def test_categories(control_plane: ControlPlane) -> None:
    by_category: dict[str, set[str]] = {}
    for group in _discovery(control_plane):
        for resource in group["resources"]:
            for category in resource.get("categories", ()):
                by_category.setdefault(category, set()).add(resource["resource"])
    users = {"services", "configurations", "revisions", "routes", "domainmappings"}
    assert by_category["all"] == by_category["knative"] == by_category["serving"] == users
    assert by_category["autoscaling"] == {"podautoscalers", "metrics"}
    assert by_category["networking"] >= {"serverlessservices", "ingresses", "certificates", "clusterdomainclaims"}
    assert by_category["caching"] == {"images"}


def test_a_second_application_changes_nothing(bare_control_plane: ControlPlane) -> None:
    install(bare_control_plane, deployments=True)
    try:
        said = kubectl(bare_control_plane, "apply", "-k", str(MANIFESTS), "--warnings-as-errors").splitlines()
        changed = [line for line in said if not line.endswith(" unchanged")]
        # kubectl cannot see that the API server's defaults of a webhook configuration are no change.
        assert all("webhookconfiguration" in line for line in changed), changed
        pods = _made_by_deployments(bare_control_plane)
        assert pods == {"controller", "gateway", "webhook"}, "the namespace admits restricted pods only"
    finally:
        kubectl(bare_control_plane, "delete", "-f", str(MANIFESTS / "deploy"), "--wait")


def _made_by_deployments(control_plane: ControlPlane) -> set[str]:
    kubectl(control_plane, "wait", "--for=condition=Progressing", "deployment", "--all", "-n", "knative-serving")
    for name in ("controller", "gateway", "webhook"):
        kubectl(control_plane, "wait", "--for=create", "pod", "-l", f"app={name}", "-n", "knative-serving")
    return {
        pod["metadata"]["labels"]["app"] for pod in get(control_plane, "pods", "-n", "knative-serving")["items"]
    }


def test_the_documented_overlay_says_image_and_domain(assets: Path, tmp_path: Path) -> None:
    page = (MANIFESTS.parent / "docs" / "operations.md").read_text()
    (block,) = (part for part in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "kustomization.yaml" in part)
    (tmp_path / "kustomization.yaml").write_text(block)
    shutil.copytree(MANIFESTS, tmp_path / "nodeless" / "manifests")
    built = subprocess.run(
        [str(assets / "kubectl"), "kustomize", str(tmp_path)], capture_output=True, text=True, check=True
    )
    objects = list(yaml.safe_load_all(built.stdout))
    images = {
        container["image"]
        for one in objects
        if one["kind"] == "Deployment"
        for container in one["spec"]["template"]["spec"]["containers"]
    }
    assert images == {"registry.example.com/nodeless:v0.1.0"}
    (domain,) = (one for one in objects if one["metadata"]["name"] == "config-domain")
    assert domain["data"]["apps.example.com"] == ""
    assert all(one["kind"].endswith("WebhookConfiguration") for one in objects[-3:]), (
        "nothing may need them before"
    )


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        ("view", [("get", "services.serving.knative.dev"), ("list", "revisions.serving.knative.dev")],
         [("create", "services.serving.knative.dev")]),
        ("edit", [("create", "services.serving.knative.dev"), ("patch", "routes.serving.knative.dev")],
         [("create", "podautoscalers.autoscaling.internal.knative.dev")]),
        ("admin", [("deletecollection", "services.serving.knative.dev")],
         [("delete", "ingresses.networking.internal.knative.dev")]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_users_roles_know_the_kinds(
    control_plane: ControlPlane, role: str, may: list[tuple[str, str]], may_not: list[tuple[str, str]]
) -> None:
    user = f"{role}-of-default"
    kubectl(
        control_plane, "create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}", "-n", "default"
    )
    for (verb, kind), expected in [*((one, "yes") for one in may), *((one, "no") for one in may_not)]:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user,
                "resourceAttributes": {
                    "namespace": "default",
                    "verb": verb,
                    "resource": kind.partition(".")[0],
                    "group": kind.partition(".")[2],
                },
            },
        }
        answer = control_plane.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        assert answer["status"]["allowed"] == (expected == "yes"), (verb, kind)
