"""The small pure rules: paths, negotiation, metadata, deletion, schemas, tables of text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.meta import JsonObject
from serving.local.apiserver import fieldvalidation, meta, negotiate, schema, validation
from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.paths import GroupPath, Target, parse
from tests.local.apiserver.objects import (
    CONFIG_MAP,
    NAMESPACE,
    WIDGET,
    WIDGET_SCHEMA,
    config_map,
    widget,
)

NOW = datetime(2026, 11, 1, 12, 0, 0, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api", GroupPath(root="api")),
        ("/apis/", GroupPath(root="apis")),
        ("/api/v1", GroupPath(root="api", version="v1")),
        ("/apis/apps", GroupPath(root="apis", group="apps")),
        ("/apis/apps/v1", GroupPath(root="apis", group="apps", version="v1")),
        ("/api/v1/pods", Target(group="", version="v1", resource="pods")),
        ("/api/v1/namespaces/x", Target(group="", version="v1", resource="namespaces", name="x")),
        (
            "/api/v1/namespaces/x/status",
            Target(group="", version="v1", resource="namespaces", name="x", subresource="status"),
        ),
        ("/api/v1/namespaces/x/pods", Target(group="", version="v1", resource="pods", namespace="x")),
        (
            "/api/v1/namespaces/x/pods/p/log",
            Target(group="", version="v1", resource="pods", namespace="x", name="p", subresource="log"),
        ),
        (
            "/apis/apps/v1/namespaces/x/deployments/d",
            Target(group="apps", version="v1", resource="deployments", namespace="x", name="d"),
        ),
        (
            "/apis/g/v1/things/t/status",
            Target(group="g", version="v1", resource="things", name="t", subresource="status"),
        ),
        ("/api/v1/namespaces/x/pods/p/proxy/deep", None),
        ("/metrics", None),
        ("/", None),
    ],
)
def test_paths(path: str, expected: object) -> None:
    assert parse(path) == expected


TABLE = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,"
    "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)
DISCOVERY = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)


@pytest.mark.parametrize(
    ("header", "form"),
    [
        ("", "object"),
        ("*/*", "object"),
        ("application/json, */*", "object"),
        ("application/vnd.kubernetes.protobuf,application/json", "object"),
        (TABLE, "table"),
        ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "partial-list"),
        (DISCOVERY, "discovery"),
        ("application/json;as=Table;v=v7;g=meta.k8s.io,application/json", "object"),
    ],
)
def test_accept(header: str, form: str) -> None:
    assert negotiate.accepted(header).name == form


def test_what_cannot_be_negotiated() -> None:
    with pytest.raises(StatusError) as caught:
        negotiate.accepted("application/vnd.kubernetes.protobuf")
    assert caught.value.code == 406
    for header in ("text/plain", "application/x-www-form-urlencoded"):
        with pytest.raises(StatusError) as caught:
            negotiate.body_type(header)
        assert caught.value.code == 415
    with pytest.raises(StatusError) as caught:
        negotiate.patch_type(negotiate.STRATEGIC_PATCH, custom=True)
    assert caught.value.code == 415
    assert negotiate.patch_type(negotiate.STRATEGIC_PATCH, custom=False) == negotiate.STRATEGIC_PATCH


# Metadata.


def create(obj: JsonObject, kind: Kind) -> JsonObject:
    return meta.prepare_create(obj, kind, namespace="default", now=NOW, uid="u", suffix="abcde")


def test_create_sets_what_the_server_owns() -> None:
    body = widget("w", size=2)
    body["metadata"] |= {"uid": "mine", "generation": 7, "resourceVersion": "9", "deletionTimestamp": "x"}
    body["status"] = {"ready": True}
    made = create(body, WIDGET)
    assert made["metadata"] == {
        "name": "w",
        "namespace": "default",
        "uid": "u",
        "creationTimestamp": "2026-11-01T12:00:00Z",
        "generation": 1,
    }
    assert "status" not in made
    assert "generation" not in create(config_map("c"), CONFIG_MAP)["metadata"]


def test_generate_name() -> None:
    body = {**config_map("x"), "metadata": {"generateName": "a" * 70}}
    assert create(body, CONFIG_MAP)["metadata"]["name"] == "a" * 58 + "abcde"
    assert len(meta.random_suffix()) == 5
    with pytest.raises(StatusError, match="name or generateName is required"):
        create({**config_map("x"), "metadata": {}}, CONFIG_MAP)


@pytest.mark.parametrize(
    ("kind", "name", "valid"),
    [
        (CONFIG_MAP, "a.b-c", True),
        (CONFIG_MAP, "A", False),
        (CONFIG_MAP, "a/b", False),
        (CONFIG_MAP, "-a", False),
        (CONFIG_MAP, "a" * 254, False),
        (NAMESPACE, "a.b", False),
        (NAMESPACE, "a" * 64, False),
    ],
)
def test_names(kind: Kind, name: str, valid: bool) -> None:
    assert (meta.name_causes(name, kind) == []) is valid


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"labels": {"-": "x"}}, "metadata.labels"),
        ({"labels": {"a/b/c": "x"}}, "metadata.labels"),
        ({"labels": {"a": "b c"}}, "metadata.labels"),
        ({"labels": {"a": "b" * 64}}, "metadata.labels"),
        ({"annotations": {"UP/x y": ""}}, "metadata.annotations"),
        ({"finalizers": ["a b"]}, "metadata.finalizers"),
        ({"ownerReferences": [{"kind": "x"}]}, "metadata.ownerReferences.apiVersion"),
    ],
)
def test_bad_metadata(metadata: JsonObject, field: str) -> None:
    causes = meta.metadata_causes({"metadata": {"name": "a", **metadata}}, CONFIG_MAP)
    assert causes[0].field == field


def test_two_controllers_are_refused() -> None:
    owner = {"apiVersion": "v1", "kind": "X", "name": "x", "uid": "1", "controller": True}
    causes = meta.metadata_causes({"metadata": {"name": "a", "ownerReferences": [owner, owner]}}, CONFIG_MAP)
    assert "Only one reference can have Controller set to true" in causes[0].text


def test_update_keeps_what_an_endpoint_may_not_change() -> None:
    old = {**create(widget("w", size=1), WIDGET), "status": {"ready": False}}
    new = {**widget("w", size=2), "status": {"ready": True}}
    new["metadata"] = {
        "name": "w",
        "labels": {"a": "b"},
        "uid": "other",
        "creationTimestamp": "x",
        "generation": 5,
    }
    main = meta.prepare_update(new, old, WIDGET, subresource="")
    assert main["status"] == {"ready": False}
    assert main["spec"] == {"size": 2}
    assert main["metadata"]["uid"] == "u"
    assert main["metadata"]["labels"] == {"a": "b"}
    status = meta.prepare_update(new, old, WIDGET, subresource="status")
    assert (status["spec"], status["status"]) == ({"size": 1}, {"ready": True})
    assert "labels" not in status["metadata"]


@pytest.mark.parametrize(
    ("change", "generation"),
    [({"spec": {"size": 2}}, 2), ({"status": {"ready": True}}, 1), ({}, 1)],
)
def test_generation_counts_changes_of_the_spec(change: JsonObject, generation: int) -> None:
    old = create(widget("w", size=1), WIDGET)
    new = {**old, "metadata": {**old["metadata"], "labels": {"a": "b"}}, **change}
    meta.renumber(new, old, WIDGET)
    assert new["metadata"]["generation"] == generation


# Schemas.


def test_prune_default_and_null() -> None:
    obj = widget(
        "w", bogus=1, colour=None, free={"any": {"thing": 1}}, parts=[{"name": "a", "x": 1}, {"name": "b"}]
    )
    obj["extra"] = {}
    assert schema.prune(obj, WIDGET_SCHEMA) == ["spec.bogus", "spec.parts[0].x", "extra"]
    schema.drop_nulls(obj, WIDGET_SCHEMA)
    schema.default(obj, WIDGET_SCHEMA)
    parts = [{"name": "a", "weight": 10}, {"name": "b", "weight": 10}]
    assert obj["spec"] == {"free": {"any": {"thing": 1}}, "parts": parts, "size": 1}


NAMES = st.sampled_from(["size", "parts", "name", "free", "weight", "zzz"])
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=2)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4)),
)


@given(st.dictionaries(st.sampled_from(["spec", "status", "zzz"]), JSON))
def test_pruning_and_defaulting_twice_changes_nothing(body: JsonObject) -> None:
    obj = {"apiVersion": "example.dev/v1", "kind": "Widget", "metadata": {}, **body}
    schema.prune(obj, WIDGET_SCHEMA)
    schema.default(obj, WIDGET_SCHEMA)
    once = repr(obj)
    assert schema.prune(obj, WIDGET_SCHEMA) == []
    schema.default(obj, WIDGET_SCHEMA)
    assert repr(obj) == once
    list(validation.validate(obj, WIDGET_SCHEMA))


@pytest.mark.parametrize(
    ("own", "value", "message"),
    [
        ({"type": "integer"}, "x", 'v: Invalid value: "string": v in body must be of type integer: "string"'),
        ({"type": "string"}, True, 'v: Invalid value: "boolean": v in body must be of type string: "boolean"'),
        ({"type": "integer"}, 1.0, None),
        ({"type": "number"}, 1, None),
        ({"x-kubernetes-int-or-string": True}, "80%", None),
        ({"x-kubernetes-int-or-string": True}, 1.5, "v: Invalid value"),
        ({"type": "string", "enum": ["a", "b"]}, "c", 'v: Unsupported value: "c": supported values: "a", "b"'),
        (
            {"type": "integer", "minimum": 0},
            -1,
            "v: Invalid value: -1: v in body should be greater than or equal to 0",
        ),
        ({"type": "integer", "maximum": 5}, 6, "v: Invalid value: 6: v in body should be less than or equal to 5"),
        ({"type": "integer", "multipleOf": 2}, 3, "v: Invalid value: 3: v in body should be a multiple of 2"),
        ({"type": "string", "maxLength": 2}, "abc", "v: Too long: may not be more than 2 bytes"),
        (
            {"type": "string", "minLength": 2},
            "a",
            'v: Invalid value: "a": v in body should be at least 2 chars long',
        ),
        ({"type": "string", "pattern": "^a"}, "b", "v: Invalid value: \"b\": v in body should match '^a'"),
        ({"type": "object", "required": ["x"]}, {}, "v.x: Required value"),
        ({"type": "array", "maxItems": 1}, [1, 2], "v: Too many: 2: must have at most 1 items"),
        ({"type": "string", "nullable": True}, None, None),
        (
            {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object"},
            },
            [{"k": 1}, {"k": 1}],
            'v[1]: Duplicate value: {"k":1}',
        ),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, [], "v: Invalid value"),
        (
            {"oneOf": [{"minimum": 1}, {"minimum": 2}]},
            3,
            "v: Invalid value: 3: v in body must validate one and only one",
        ),
        ({"not": {"enum": ["x"]}}, "x", "v: Invalid value"),
    ],
)
def test_validation(own: JsonObject, value: Any, message: str | None) -> None:
    causes = validation.validate({"v": value}, {"type": "object", "properties": {"v": own}})
    if message is None:
        assert causes == []
    else:
        assert causes[0].message.startswith(message)


# Field validation.


def test_duplicate_fields_are_found_with_their_paths() -> None:
    decoded = fieldvalidation.decode_json(b'{"a": [{"b": 1, "b": 2}], "c": {"d": 1, "d": 1, "d": 3}, "a2": 1}')
    assert decoded.duplicates == ('duplicate field "a[0].b"', 'duplicate field "c.d"')
    assert decoded.value == {"a": [{"b": 2}], "c": {"d": 3}, "a2": 1}


@pytest.mark.parametrize("body", [b"{", b"", b'{"a": NaN}', b"[" * 100_000, b"\xff\xfe"])
def test_bad_json(body: bytes) -> None:
    for find in (True, False):
        with pytest.raises(StatusError) as caught:
            fieldvalidation.decode_json(body, find_duplicates=find)
        assert caught.value.code == 400


def test_yaml_bodies_keep_timestamps_as_text() -> None:
    assert fieldvalidation.decode_yaml(b"a: 2026-11-01T12:00:00Z\nb: 1").value == {
        "a": "2026-11-01T12:00:00Z",
        "b": 1,
    }
    with pytest.raises(StatusError):
        fieldvalidation.decode_yaml(b"a: [")


def test_reports() -> None:
    def report(mode: str) -> list[str]:
        twice = ('duplicate field "x"',)
        return fieldvalidation.report(WIDGET, widget("w"), mode=mode, duplicates=twice, unknown=["spec.y"])

    assert report("Ignore") == []
    assert report("Warn") == ['duplicate field "x"', 'unknown field "spec.y"']
    with pytest.raises(StatusError) as caught:
        report("Strict")
    assert caught.value.message == (
        'Widget in version "v1" cannot be handled as a Widget: strict decoding error: '
        'duplicate field "x", unknown field "spec.y"'
    )
    with pytest.raises(StatusError) as caught:
        fieldvalidation.mode("Loose", options_kind="CreateOptions")
    assert caught.value.code == 422
