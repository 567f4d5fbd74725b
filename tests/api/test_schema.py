"""The tables: decoding, meaning, errors, and the manifests made of them."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.api.errors import FieldError, invalid_value, merged, missing_field, render, under
from serving.api.schema.canonical import canonical, same, short_diff, without_nulls
from serving.api.schema.decode import DecodeError, check_types
from serving.api.schema.kinds import KINDS, REVISION_TEMPLATE, SERVICE_SPEC
from tests.api.strategies import JSON, KINDS_UNDER_TEST, objects

MANIFESTS = Path(__file__).parents[2] / "manifests"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", MANIFESTS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_manifests_are_current() -> None:
    files = generator().files()
    made = {*MANIFESTS.glob("crds/*.yaml"), *MANIFESTS.glob("webhook/*.yaml"), MANIFESTS / "kustomization.yaml"}
    assert set(files) == made
    for path, content in files.items():
        assert path.read_text() == content, f"run python manifests/generate.py: {path}"


def crd(name: str) -> Any:
    return yaml.load((MANIFESTS / "crds" / f"{name}.yaml").read_text(), Loader=yaml.CSafeLoader)


@pytest.mark.parametrize(
    ("name", "short_names", "columns"),
    [
        ("service", ["kservice", "ksvc"], ["URL", "LatestCreated", "LatestReady", "Ready", "Reason"]),
        ("configuration", ["config", "cfg"], ["LatestCreated", "LatestReady", "Ready", "Reason"]),
        (
            "revision",
            ["rev"],
            ["Config Name", "Generation", "Ready", "Reason", "Actual Replicas", "Desired Replicas"],
        ),
        ("route", ["rt"], ["URL", "Ready", "Reason"]),
        ("domainmapping", ["dm"], ["URL", "Ready", "Reason"]),
    ],
)
def test_crds_have_upstreams_names_and_columns(name: str, short_names: list[str], columns: list[str]) -> None:
    spec = crd(name)["spec"]
    assert spec["names"]["shortNames"] == short_names
    assert spec["names"]["categories"] == ["all", "knative", "serving"]
    assert [column["name"] for column in spec["versions"][0]["additionalPrinterColumns"]] == columns
    assert spec["versions"][0]["subresources"] == {"status": {}}


def test_the_crd_prunes_exactly_what_upstream_prunes() -> None:
    schema = crd("revision")["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    container = schema["properties"]["spec"]["properties"]["containers"]["items"]["properties"]
    kept = (
        "args command env envFrom image imagePullPolicy livenessProbe name ports readinessProbe resources "
        "securityContext startupProbe terminationMessagePath terminationMessagePolicy volumeMounts workingDir"
    )
    assert " ".join(sorted(container)) == kept
    assert container["ports"]["items"]["properties"]["protocol"]["default"] == "TCP"
    assert "hostPort" not in container["ports"]["items"]["properties"]


def test_every_node_of_a_schema_is_structural() -> None:
    def visit(schema: dict[str, Any], path: str) -> None:
        assert "type" in schema or "x-kubernetes-int-or-string" in schema, path
        for key, inner in schema.get("properties", {}).items():
            visit(inner, f"{path}.{key}")
        for key in ("items", "additionalProperties"):
            if key in schema:
                visit(schema[key], f"{path}.{key}")

    for path in (MANIFESTS / "crds").glob("*.yaml"):
        visit(crd(path.stem)["spec"]["versions"][0]["schema"]["openAPIV3Schema"], path.stem)


@settings(deadline=None)
@given(st.sampled_from(KINDS_UNDER_TEST), JSON, JSON, JSON)
def test_any_json_is_decoded_or_refused(kind: str, metadata: Any, spec: Any, template: Any) -> None:
    for obj in (spec, {"metadata": metadata, "spec": spec}, {"spec": {"template": {"spec": template}}}):
        with suppress(DecodeError):
            check_types(KINDS[kind], obj)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data(), st.sampled_from(KINDS_UNDER_TEST))
def test_what_means_the_same_is_equal(data: st.DataObject, kind: str) -> None:
    table, obj = KINDS[kind], data.draw(objects(kind))
    check_types(table, obj)
    clean = without_nulls(table, obj)
    assert same(table, obj, clean)
    assert without_nulls(table, clean) == clean
    assert canonical(table, canonical(table, obj)) == canonical(table, obj)
    assert short_diff(table, obj, clean, root="x") == ""


def test_zero_values_and_spellings_mean_nothing() -> None:
    left = {"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "1000m"}}, "stdin": False}]}}}
    right = {
        "template": {"spec": {"containers": [{"resources": {"limits": {"cpu": 1}}, "args": []}]}},
        "traffic": [],
    }
    assert same(SERVICE_SPEC, left, right)
    assert not same(SERVICE_SPEC, {"traffic": [{"percent": 0}]}, {"traffic": [{}]})


def test_a_diff_shows_what_changed() -> None:
    old = {"metadata": {"name": "a"}, "spec": {"containers": [{"image": "a", "args": ["x"]}], "timeoutSeconds": 1}}
    new = {"metadata": {"name": "a"}, "spec": {"containers": [{"image": "b"}], "timeoutSeconds": 2}}
    assert short_diff(REVISION_TEMPLATE, old, new, root="{T}") == (
        '{T}.Spec.PodSpec.Containers[0].Image:\n\t-: "a"\n\t+: "b"\n'
        '{T}.Spec.PodSpec.Containers[0].Args:\n\t-: "[x]"\n\t+: "[]"\n'
        '*{T}.Spec.TimeoutSeconds:\n\t-: "1"\n\t+: "2"\n'
    )


def test_findings_are_merged_sorted_and_prefixed() -> None:
    found = under("spec", under("containers[1]", [missing_field("image"), invalid_value("x", "[0].name", "why")]))
    found += under("spec", [missing_field("image")])
    found += [FieldError("no path")]
    assert [error.message for error in merged(found)] == ["invalid value: x", "missing field(s)", "no path"]
    assert render(found) == (
        "invalid value: x: spec.containers[1][0].name\nwhy\n"
        "missing field(s): spec.containers[1].image, spec.image\n"
        "no path: "
    )
