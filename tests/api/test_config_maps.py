"""ConfigMaps are read and refused as upstream does, and a bad edit keeps the last good value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from serving.api.config import defaults, deployment, domain, features, gc, network, observability
from serving.api.config.errors import ConfigError
from serving.api.config.store import (
    CONFIG_NAMES,
    EXAMPLE_CHECKSUM,
    ApiConfig,
    Store,
    config_map_problem,
    example_checksum,
    with_config_map,
)
from serving.api.config.template import TemplateError, Values, parse_template
from tests.api.support import golden

MANIFESTS = Path(__file__).parents[2] / "manifests" / "config"
# Ours names the key.
OWN_WORDS = ("template:", "error converting YAML")


@pytest.mark.parametrize("case", golden("config_maps.yaml"), ids=lambda case: f"{case['config']}-{case['data']}")
def test_config_maps_are_refused_with_upstreams_text(case: dict[str, Any]) -> None:
    problem = config_map_problem(case["config"], case["data"], {}) or ""
    if case["error"].startswith(OWN_WORDS):
        assert problem
    else:
        assert problem == case["error"]


def test_an_error_names_key_value_and_what_is_allowed() -> None:
    with pytest.raises(ConfigError) as caught:
        gc.parse({"min-non-active-revisions": "-1"})
    assert (caught.value.key, caught.value.value, caught.value.allowed) == (
        "min-non-active-revisions",
        "-1",
        "0 or more",
    )


def test_a_bad_edit_keeps_the_last_good_value() -> None:
    store = Store()
    assert store.update("config-defaults", {"revision-timeout-seconds": "60"})
    with pytest.raises(ConfigError, match="cannot be greater"):
        store.update("config-defaults", {"revision-timeout-seconds": "6000"})
    assert store.config.defaults.revision_timeout_seconds == 60
    assert not store.update("config-defaults", {"revision-timeout-seconds": "60"})
    assert store.update("config-defaults", None)
    assert store.config == ApiConfig()


def test_names_that_are_not_ours_are_ignored() -> None:
    assert with_config_map(ApiConfig(), "config-of-someone", {"a": "b"}) == ApiConfig()
    assert config_map_problem("config-of-someone", {"a": "b"}, {}) is None


def test_the_closest_domain_wins() -> None:
    config = domain.parse(
        {
            "example.com": "",
            "b.org": "selector:\n  app: shop\n",
            "a.org": "selector:\n  app: shop\n",
            "deep.org": "selector:\n  app: shop\n  tier: gold\n",
            "_example": "nonsense: [",
        }
    )
    assert config.domain_for({}) == "example.com"
    assert config.domain_for({"app": "shop"}) == "a.org"
    assert config.domain_for({"app": "shop", "tier": "gold"}) == "deep.org"
    local = {"app": "shop", "networking.knative.dev/visibility": "cluster-local"}
    assert config.domain_for(local) == "svc.cluster.local"
    assert domain.parse({}).domain_for({}) == "svc.cluster.local"


@pytest.mark.parametrize("text", ["selector: x", "- a", "selector: {a: 1}", "a: [", "x"])
def test_a_domain_needs_a_selector(text: str) -> None:
    with pytest.raises(ConfigError, match=r"example\.com"):
        domain.parse({"example.com": text})


def test_keys_are_read() -> None:
    assert gc.parse({"max-non-active-revisions": "Disabled"}).max_non_active_revisions is None
    assert gc.parse({"retain-since-create-time": "1h"}).retain_since_create_time == 3600
    assert defaults.parse({"enable-service-links": "default"}).enable_service_links is None
    assert defaults.parse({"revision-timeout-seconds": "60"}).revision_response_start_timeout_seconds == 60
    assert features.parse({"multi-container": "DISABLED"}).multi_container == "Disabled"
    assert features.parse({"multi-container": "perhaps"}).multi_container == "Enabled"
    assert network.parse({"httpProtocol": "Redirected"}).http_protocol == "redirected"
    assert network.parse({"auto-tls": "Enabled"}).external_domain_tls
    assert not network.parse({"auto-tls": "Enabled", "external-domain-tls": "x"}).external_domain_tls
    assert network.parse({"internal-encryption": "true"}).system_internal_tls
    assert deployment.parse({"registries-skipping-tag-resolving": "a, b"}).registries_skipping_tag_resolving == {
        "a",
        "b",
    }
    classes = deployment.parse({"runtime-class-name": "kata: {selector: {a: b}}\ngvisor:\n"})
    assert classes.runtime_class_for({"a": "b"}) == "kata"
    assert classes.runtime_class_for({}) == "gvisor"
    assert deployment.parse({}).runtime_class_for({}) is None
    assert observability.parse({"tracing-protocol": "stdout"}).tracing.protocol == "stdout"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("{{.Name}}.{{.Namespace}}.{{.Domain}}", "n.ns.d"),
        ("{{ .Name -}}  .x", "n.x"),
        ('{{index .Annotations "sub"}}.{{.Domain}}', "s.d"),
        ("{{.Annotations.sub}}", "s"),
        ('{{index .Labels "none"}}x', "x"),
        ("{{/* why */}}a", "a"),
    ],
)
def test_templates(text: str, want: str) -> None:
    values: Values = {"Name": "n", "Namespace": "ns", "Domain": "d", "Annotations": {"sub": "s"}, "Labels": {}}
    assert parse_template(text, name="t").render(values) == want


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{{.Name", "unclosed action"),
        ("{{if .Name}}x{{end}}", "if .Name}} is not supported"),
        ("{{.Name | lower}}", "not supported"),
        ("{{.Nope}}", "known fields: .Name"),
        ("{{.Labels}}", "is a map"),
        ("{{.Name.x}}", "is a text"),
    ],
)
def test_bad_templates_say_what_is_allowed(text: str, why: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(why)):
        parse_template(text, name="t").render({"Name": "n", "Labels": {}})


@given(st.sampled_from(CONFIG_NAMES), st.dictionaries(st.text(max_size=5), st.text(max_size=10), max_size=3))
def test_any_data_is_read_or_refused(name: str, data: dict[str, str]) -> None:
    problem = config_map_problem(name, data, {})
    assert problem is None or problem


@pytest.mark.parametrize("path", sorted(MANIFESTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_manifests_are_valid_and_their_examples_are_the_defaults(path: Path) -> None:
    manifest = yaml.safe_load(path.read_text())
    name, data = manifest["metadata"]["name"], manifest["data"]
    annotations = manifest["metadata"]["annotations"]
    assert name == f"config-{path.stem}"
    assert name in CONFIG_NAMES
    assert annotations[EXAMPLE_CHECKSUM] == example_checksum(data["_example"])
    assert config_map_problem(name, data, annotations) is None
    edited = {**data, "_example": data["_example"] + "x: y\n"}
    assert "the update modifies a key in" in (config_map_problem(name, edited, annotations) or "")
    example = {key: "" if value is None else str(value) for key, value in yaml.safe_load(data["_example"]).items()}
    config = with_config_map(ApiConfig(), name, example)
    if path.stem not in ("defaults", "deployment", "domain", "observability"):
        assert config == ApiConfig()


def test_every_config_map_has_a_manifest() -> None:
    assert {f"config-{path.stem}" for path in MANIFESTS.glob("*.yaml")} == set(CONFIG_NAMES)
